"""Spools and outboxes with a clock that tests move by hand."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from dreamforge.spec import ModelRef, RenderParams, RenderSpec
from dreamforge.transport.memory import MemoryEventSink
from dreamforge_runner.outbox import Outbox
from dreamforge_runner.spool import Header, Spool

ATTEMPT = "run-1"


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def make_spec(**changes: Any) -> RenderSpec:
    params = {"prompt": "a castle", **changes.pop("params", {})}
    model = changes.pop("model", ModelRef(id="m", name="A model", kind="sketch", version="1"))
    return RenderSpec(
        job_id=UUID(int=7),
        created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        correlation_id="corr",
        params=RenderParams(**params),
        model=model,
        **changes,
    )


_opened: list[Spool] = []


def make_spool(folder: Path, max_bytes: int = 8 << 20) -> Spool:
    _opened.append(Spool.create(folder, Header.of(make_spec(), ATTEMPT), max_bytes=max_bytes))
    return _opened[-1]


def load_spool(path: Path) -> Spool:
    """What another process would find."""
    spool = Spool.load(path)
    assert spool is not None
    _opened.append(spool)
    return spool


def close_spools() -> None:
    while _opened:
        _opened.pop().close()


class Bench:
    """An outbox over a memory transport, turned by hand."""

    def __init__(self, folder: Path, max_bytes: int = 8 << 20, spool: Spool | None = None) -> None:
        self.clock = Clock()
        self.sink = MemoryEventSink()
        self.refusals: list[object] = []
        self.spool = spool or make_spool(folder, max_bytes)
        self.outbox = Outbox(self.spool, self.sink, on_refused=self.refusals.append, clock=self.clock)

    def pass_time(self, seconds: float, step: float = 0.05) -> None:
        """Turn as the outbox's thread would: never later than it asked for."""
        end = self.clock.now + seconds
        while self.clock.now < end and not self.outbox.drained:
            wait = self.outbox.turn()
            self.clock.now = min(end, self.clock.now + min(max(wait, 0.001), step))

    @property
    def committed(self) -> list[int]:
        return [event.seq for event in self.sink.committed(ATTEMPT)]
