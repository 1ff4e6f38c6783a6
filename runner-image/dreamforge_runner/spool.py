"""The events of one attempt that are not yet safe in Postgres: a bounded append-only NDJSON file and its index.

The first line is a header, each further line one event. Artifacts, endings and starts are never dropped; when the
file would grow past its bound, the oldest progress goes first, then log lines. Not thread-safe: the outbox locks.
"""

import bisect
import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from uuid import UUID

from pydantic import BaseModel, ConfigDict, ValidationError

from dreamforge import telemetry
from dreamforge.events import (
    RUNNER_EVENT,
    ArtifactStored,
    AttemptFinished,
    EventBatch,
    GpuMeasured,
    ItemProgressed,
    LogWritten,
    RunnerEvent,
)
from dreamforge.jobs import StepName
from dreamforge.spec import RenderSpec

log = telemetry.logger(__name__)

MAX_BYTES = 8 << 20
SUFFIX = ".ndjson"
_HEADER_ROOM = 512
_DURABLE = (ArtifactStored, AttemptFinished)


class Header(BaseModel):
    """Whose events these are; what was trimmed away already."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    job_id: UUID
    step: StepName
    shard: int
    shards: int = 1
    attempt_id: str
    correlation_id: str
    acked: int = 0
    stored: int = 0

    @classmethod
    def of(cls, spec: RenderSpec, attempt_id: str) -> "Header":
        return cls(
            job_id=spec.job_id,
            step=spec.step,
            shard=spec.shard.index,
            shards=spec.shard.count,
            attempt_id=attempt_id,
            correlation_id=spec.correlation_id,
        )

    def batch(self, prev_seq: int, events: list[RunnerEvent]) -> EventBatch:
        return EventBatch(
            job_id=self.job_id,
            step=self.step,
            shard=self.shard,
            shards=self.shards,
            attempt_id=self.attempt_id,
            correlation_id=self.correlation_id,
            prev_seq=prev_seq,
            events=events,
        )


@dataclass(frozen=True, slots=True)
class _Entry:
    event: RunnerEvent
    size: int


class Spool:
    """Append, read on from a ``seq``, trim, remove."""

    def __init__(self, path: Path, header: Header, *, max_bytes: int = MAX_BYTES) -> None:
        self.path = path
        self.header = header
        self._max_bytes = max_bytes
        self._entries: list[_Entry] = []
        self._seqs: list[int] = []
        self._kept_bytes = 0
        self._file_bytes = 0
        self._file: IO[bytes] | None = None
        self.last_seq = header.acked
        self.stored = header.stored
        self.finished = False
        self.measured = False
        self.dropped = 0

    @classmethod
    def create(cls, folder: Path, header: Header, *, max_bytes: int = MAX_BYTES) -> "Spool":
        """A new file in ``folder``; a disk that can't be written to costs durability, not the job."""
        spool = cls(folder / f"{header.attempt_id}{SUFFIX}", header, max_bytes=max_bytes)
        spool._rewrite()
        return spool

    @classmethod
    def load(cls, path: Path) -> "Spool | None":
        """What an earlier process left; a torn last line is where it died. ``None``: not one event can be read."""
        lines = path.read_bytes().splitlines()
        try:
            spool = cls(path, Header.model_validate_json(lines[0]))
        except (IndexError, ValidationError):
            return None
        for line in lines[1:]:
            try:
                spool._remember(RUNNER_EVENT.validate_json(line), len(line) + 1)
            except ValidationError:
                log.warning("spool ends in a torn line", spool=path.name, after_seq=spool.last_seq)
                break
        spool._rewrite()
        return spool

    def append(self, event: RunnerEvent) -> None:
        """Add the newest event; on disk before this returns when it must not be lost."""
        line = event.model_dump_json().encode() + b"\n"
        self._remember(event, len(line))
        if self._kept_bytes + _HEADER_ROOM > self._max_bytes:
            self._drop_oldest()
        if self._file_bytes + len(line) > self._max_bytes:
            self._rewrite()
        else:
            self._write(line, durable=isinstance(event, _DURABLE))

    def after(self, seq: int, limit: int) -> list[RunnerEvent]:
        """Up to ``limit`` events that follow ``seq``, in order."""
        start = bisect.bisect_right(self._seqs, seq)
        return [entry.event for entry in self._entries[start : start + limit]]

    def trim(self, seq: int) -> None:
        """Forget what is safe. The file shrinks at its next rewrite, the memory now."""
        cut = bisect.bisect_right(self._seqs, seq)
        if cut == 0:
            return
        self._kept_bytes -= sum(entry.size for entry in self._entries[:cut])
        del self._entries[:cut], self._seqs[:cut]
        self.header = self.header.model_copy(update={"acked": seq, "stored": self._stored_before()})

    def remove(self) -> None:
        """Everything is safe, or nobody wants it."""
        self.close()
        with contextlib.suppress(OSError):  # gone already, or on a disk that never took it
            self.path.unlink()

    def close(self) -> None:
        """Leave the file for the next process."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):  # it flushes, and a full disk refuses that a second time
                file.close()

    def _stored_before(self) -> int:
        return self.stored - sum(isinstance(entry.event, ArtifactStored) for entry in self._entries)

    def _remember(self, event: RunnerEvent, size: int) -> None:
        self._entries.append(_Entry(event, size))
        self._seqs.append(event.seq)
        self._kept_bytes += size
        self.last_seq = event.seq
        self.stored += isinstance(event, ArtifactStored)
        self.finished = self.finished or isinstance(event, AttemptFinished)
        self.measured = self.measured or isinstance(event, GpuMeasured)

    def _drop_oldest(self) -> None:
        """Make room for a quarter of the bound at once: a rewrite costs as much as the whole file."""
        target = self._max_bytes * 3 // 4
        for kinds in ((ItemProgressed,), (ItemProgressed, LogWritten)):
            kept: list[_Entry] = []
            excess = self._kept_bytes - target
            for entry in self._entries:
                if excess > 0 and isinstance(entry.event, kinds):
                    excess -= entry.size
                    self.dropped += 1
                else:
                    kept.append(entry)
            self._entries = kept
            self._seqs = [entry.event.seq for entry in kept]
            self._kept_bytes = sum(entry.size for entry in kept)
            if self._kept_bytes <= target:
                break

    def _rewrite(self) -> None:
        """Write header and kept events to a fresh file in the old one's place."""
        self.close()
        fresh = self.path.with_suffix(".tmp")
        lines = [self.header.model_dump_json().encode() + b"\n"]
        lines.extend(entry.event.model_dump_json().encode() + b"\n" for entry in self._entries)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with fresh.open("wb") as file:
                file.writelines(lines)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.path)
            self._file = self.path.open("ab")
        except OSError as error:
            log.error("spool can't be written, events are kept in memory only", error=error.strerror)
            with contextlib.suppress(OSError):  # half a file, where room is scarce
                fresh.unlink()
        self._file_bytes = sum(map(len, lines))

    def _write(self, line: bytes, *, durable: bool) -> None:
        if self._file is None:
            return
        try:
            self._file.write(line)
            self._file.flush()
            if durable:
                os.fsync(self._file.fileno())
            self._file_bytes += len(line)
        except OSError as error:
            log.error("spool can't be written, events are kept in memory only", error=error.strerror)
            self.close()
