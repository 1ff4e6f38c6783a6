"""Makes job rows and runner events for tests, through the same statements the product uses."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from dreamforge.db import jobs, registry
from dreamforge.events import (
    ArtifactStored,
    AttemptFinished,
    AttemptStarted,
    EventBatch,
    Failure,
    GpuMeasured,
    ItemProgressed,
    ItemStarted,
    Outcome,
    RunnerEvent,
    Stage,
)
from dreamforge.jobs import StepName
from dreamforge.models import SKETCH
from dreamforge.spec import ImageFormat, RenderParams
from dreamforge_api.worker.ingest import new_id

STEP = StepName.GENERATE
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def register_sketch(connection: Connection) -> None:
    """The built-in model, as the API registers it at start."""
    connection.execute(registry.UPSERT, registry.upsert_parameters(SKETCH))


def create(engine: Engine, *, count: int = 1, deadline: timedelta = timedelta(hours=1), **params: Any) -> UUID:
    """A queued job."""
    job_id = new_id()
    made = datetime.now(UTC)
    rendered = RenderParams(prompt="a lighthouse", count=count, **params)
    with engine.begin() as connection:
        register_sketch(connection)
        connection.execute(
            jobs.CREATE,
            {
                "id": job_id,
                "owner": "default",
                "type": "generate",
                "provider": "local-sketch",
                "model_id": SKETCH.id,
                "params": rendered.model_dump_json(),
                "preset": None,
                "labels": "{}",
                "warnings": "[]",
                "count": count,
                "correlation_id": "test",
                "created_at": made,
                "deadline_at": made + deadline,
                "step": STEP.value,
            },
        )
    return job_id


class Runner:
    """Speaks as one attempt: numbers events and chains batches."""

    def __init__(self, job_id: UUID, attempt_id: str = "run-1", shard: int = 0) -> None:
        self.job_id = job_id
        self.attempt_id = attempt_id
        self.shard = shard
        self.seq = 0

    def batch(self, *events: RunnerEvent, prev_seq: int | None = None) -> EventBatch:
        return EventBatch(
            job_id=self.job_id,
            step=STEP,
            shard=self.shard,
            attempt_id=self.attempt_id,
            correlation_id="test",
            prev_seq=events[0].seq - 1 if prev_seq is None else prev_seq,
            events=list(events),
        )

    def _next(self) -> dict[str, Any]:
        self.seq += 1
        return {"seq": self.seq, "ts": datetime.now(UTC)}

    def started(self) -> AttemptStarted:
        return AttemptStarted(**self._next(), backend="sketch", runner="host-1")

    def item(self, index: int, seed: int = 7) -> ItemStarted:
        return ItemStarted(**self._next(), item_index=index, item_seed=seed)

    def progress(self, index: int, step: int, total: int = 30) -> ItemProgressed:
        return ItemProgressed(
            **self._next(), item_index=index, stage=Stage.DENOISING, step_index=step, steps_total=total
        )

    def stored(self, index: int, seed: int = 7) -> ArtifactStored:
        return ArtifactStored(
            **self._next(),
            item_index=index,
            key=f"dreamforge/default/jobs/{self.job_id}/generate/20260102T030405Z_{index}_64x64_{seed}.png",
            format=ImageFormat.PNG,
            width=64,
            height=64,
            item_seed=seed,
            size_bytes=10,
            sha256="0" * 64,
            metadata={"seed": seed},
            seconds=0.5,
        )

    def gpu(self) -> GpuMeasured:
        return GpuMeasured(
            **self._next(),
            source="none",
            start_mib=None,
            peak_mib=None,
            end_mib=None,
            clean=None,
            child_discarded=False,
        )

    def finished(self, outcome: Outcome, failure: Failure | None = None, done: int = 0) -> AttemptFinished:
        exit_code = 0 if outcome is Outcome.SUCCEEDED else 30
        return AttemptFinished(**self._next(), outcome=outcome, exit_code=exit_code, items_done=done, failure=failure)


def rows(engine: Engine, query: str, **parameters: object) -> list[dict[str, Any]]:
    """Run a query and give its rows as dictionaries."""
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(text(query), parameters).mappings()]
