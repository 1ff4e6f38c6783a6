"""Runner events become rows: pure functions from what a job is and what was said to what changes.

Every runner event becomes at most one public event of its own (it carries ``producer_seq``); a state change or an
item's completion adds one more. ``seq`` counts on from the job's ``last_seq``.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from pydantic_core import to_json

from dreamforge.db.events import EventRow
from dreamforge.events import (
    ArtifactStored,
    AttemptFinished,
    AttemptStarted,
    EventType,
    GpuMeasured,
    ItemProgressed,
    ItemStarted,
    Level,
    LogWritten,
    Outcome,
    RunnerEvent,
    Stage,
    item_progress,
)
from dreamforge.jobs import ItemState, JobState


@dataclass
class Item:
    """One row of ``items``."""

    item_index: int
    status: ItemState
    progress: float
    seed: int | None
    attempt: int
    started_at: datetime | None = None
    finished_at: datetime | None = None


@dataclass
class JobView:
    """What a projection reads and moves forward: the locked job row and its items."""

    status: JobState
    count: int
    steps_total: int
    last_seq: int
    progress: float
    completed: int
    items: dict[int, Item] = field(default_factory=dict)
    started_at: datetime | None = None


@dataclass
class Changes:
    """What one batch writes."""

    rows: list[EventRow] = field(default_factory=list)
    items: dict[int, Item] = field(default_factory=dict)
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    item_seconds: list[float] = field(default_factory=list)
    gpu: GpuMeasured | None = None
    finished: AttemptFinished | None = None


class NewId(Protocol):
    """Draws an artifact's id."""

    def __call__(self) -> UUID: ...


class Projector:
    """Applies one attempt's events to a job, in order."""

    def __init__(self, job: JobView, attempt_id: str, attempt: int, new_id: NewId) -> None:
        self.job = job
        self.changes = Changes()
        self._attempt_id = attempt_id
        self._attempt = attempt
        self._new_id = new_id
        self._total = sum(item.progress for item in job.items.values())

    def apply(self, events: Iterable[RunnerEvent]) -> Changes:
        """Project all of ``events`` and return everything that changed."""
        for event in events:
            match event:
                case AttemptStarted():
                    self._attempt_started(event)
                case ItemStarted():
                    self._item_started(event)
                case ItemProgressed():
                    self._item_progressed(event)
                case ArtifactStored():
                    self._artifact_stored(event)
                case LogWritten():
                    self._log(event, event.level, event.code, event.message, event.item_index)
                case GpuMeasured():
                    self._gpu_measured(event)
                case AttemptFinished():
                    self._attempt_finished(event)
        return self.changes

    def note(self, ts: datetime, level: Level, code: str, message: str) -> None:
        """Add a log event of our own, about what the runner's events led to."""
        self._row(ts, EventType.LOG, code, message, _log_payload(level, code, message), level=level)

    def _attempt_started(self, event: AttemptStarted) -> None:
        if self.job.status is JobState.QUEUED:
            self.job.status = JobState.RUNNING
            self.job.started_at = event.ts
            payload = {"status": "running", "previous": "queued", "attempt": self._attempt}
            self._row(event.ts, EventType.STATE, "job.running", "job running", payload)
        message = f"attempt {self._attempt} started on {event.runner}, backend {event.backend}"
        self._log(event, Level.INFO, "attempt.started", message)

    def _item_started(self, event: ItemStarted) -> None:
        known = self.job.items.get(event.item_index)
        if known is not None and known.status is ItemState.SUCCEEDED:
            return
        self._touch(
            Item(
                event.item_index,
                ItemState.RUNNING,
                0.0 if known is None else known.progress,
                event.item_seed,
                self._attempt,
                started_at=event.ts,
            )
        )
        self._progress_row(event, event.item_index, Stage.LOADING, 0, self.job.steps_total)

    def _item_progressed(self, event: ItemProgressed) -> None:
        item = self.job.items.get(event.item_index)
        if item is None or item.status is ItemState.SUCCEEDED:
            # Loading is reported before the first item's seed is drawn: nothing to keep on the item yet.
            self._progress_row(event, event.item_index, event.stage, event.step_index, event.steps_total)
            return
        reached = item_progress(event.stage, event.step_index, event.steps_total)
        self._touch(replace(item, progress=max(item.progress, reached)))
        self._progress_row(event, event.item_index, event.stage, event.step_index, event.steps_total)

    def _artifact_stored(self, event: ArtifactStored) -> None:
        known = self.job.items.get(event.item_index)
        if known is not None and known.status is ItemState.SUCCEEDED:
            return  # a later attempt reports again what is stored; the first report stands
        started = known.started_at if known is not None else None
        self._touch(
            Item(
                event.item_index,
                ItemState.SUCCEEDED,
                1.0,
                event.item_seed,
                self._attempt,
                started_at=started,
                finished_at=event.ts,
            )
        )
        if event.seconds is not None:
            self.changes.item_seconds.append(event.seconds)
        self.job.completed += 1
        artifact = _artifact(event, str(self._new_id()))
        self.changes.artifacts.append({**artifact, "key": event.key})
        total = self.job.steps_total
        payload = self._progress_payload(1.0, "stored", total, total)
        self._row(
            event.ts, EventType.PROGRESS, "item.progress", _percent(self.job.progress), payload, event.item_index
        )
        message = f"item {event.item_index} stored, {event.size_bytes} bytes"
        row_payload = {k: v for k, v in artifact.items() if k != "item_index"}
        self._row(event.ts, EventType.ARTIFACT, "artifact.stored", message, row_payload, event.item_index, event.seq)

    def _gpu_measured(self, event: GpuMeasured) -> None:
        self.changes.gpu = event
        if event.source == "none":
            message = "GPU memory was not measured"
        else:
            message = (
                f"GPU memory start {event.start_mib} MiB, peak {event.peak_mib} MiB, end {event.end_mib} MiB, "
                f"{'clean' if event.clean else 'not clean'}"
            )
        if (own := event.allocator) is not None:
            peaks = f"{own.allocated_peak_mib:.0f} MiB allocated, {own.reserved_peak_mib:.0f} MiB reserved"
            message += f"; the backend's peak {peaks}"
        level = Level.WARNING if event.clean is False else Level.INFO
        figures = event.model_dump(mode="json", exclude={"seq", "ts", "type"})
        payload = {**_log_payload(level, "gpu.memory", message), "gpu": figures}
        self._row(event.ts, EventType.LOG, "gpu.memory", message, payload, None, event.seq, level)

    def _attempt_finished(self, event: AttemptFinished) -> None:
        self.changes.finished = event
        good = event.outcome is not Outcome.FAILED
        why = f" ({event.failure.code}: {event.failure.message})" if event.failure else ""
        message = f"attempt {self._attempt} {event.outcome}{why}"
        self._log(event, Level.INFO if good else Level.ERROR, "attempt.finished", message)

    def _touch(self, item: Item) -> None:
        before = self.job.items.get(item.item_index)
        self.job.items[item.item_index] = item
        self.changes.items[item.item_index] = item
        # Kept by difference: summing a hundred items for each of a batch's events is what ingest would spend most on.
        self._total += item.progress - (before.progress if before else 0.0)
        self.job.progress = min(max(self.job.progress, round(self._total / self.job.count, 4)), 1.0)

    def _log(self, event: RunnerEvent, level: Level, code: str, message: str, item_index: int | None = None) -> None:
        payload = _log_payload(level, code, message)
        self._row(event.ts, EventType.LOG, code, message, payload, item_index, event.seq, level)

    def _progress_row(
        self, event: RunnerEvent, item_index: int, stage: Stage, step_index: int, steps_total: int
    ) -> None:
        item = self.job.items.get(item_index)
        payload = self._progress_payload(item.progress if item else 0.0, stage.value, step_index, steps_total)
        message = _percent(self.job.progress)
        self._row(event.ts, EventType.PROGRESS, "item.progress", message, payload, item_index, event.seq)

    def _progress_payload(self, done: float, stage: str, step_index: int, steps_total: int) -> dict[str, Any]:
        return {
            "progress": self.job.progress,
            "item_progress": done,
            "stage": stage,
            "step_index": step_index,
            "steps_total": steps_total,
        }

    def _row(
        self,
        ts: datetime,
        type_: EventType,
        code: str,
        message: str,
        payload: dict[str, Any],
        item_index: int | None = None,
        producer_seq: int | None = None,
        level: Level = Level.INFO,
    ) -> None:
        self.job.last_seq += 1
        row = EventRow(
            self.job.last_seq,
            ts,
            type_.value,
            item_index,
            self._attempt,
            self._attempt_id,
            producer_seq,
            level.value,
            code,
            message,
            to_json(payload).decode(),
        )
        self.changes.rows.append(row)


def _percent(progress: float) -> str:
    return f"{progress:.0%}"


def _log_payload(level: Level, code: str, message: str) -> dict[str, Any]:
    return {"level": level.value, "code": code, "message": message}


def _artifact(event: ArtifactStored, artifact_id: str) -> dict[str, Any]:
    return {
        "id": artifact_id,
        "item_index": event.item_index,
        "format": event.format.value,
        "width": event.width,
        "height": event.height,
        "seed": event.item_seed,
        "size_bytes": event.size_bytes,
        "sha256": event.sha256,
        "metadata": event.metadata,
    }
