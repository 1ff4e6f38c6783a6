"""What a batch changed, as rows: its events, items and artifacts, and how far job and attempt are."""

import json
from dataclasses import asdict

from sqlalchemy import Connection

from dreamforge.db import artifacts, events, ingest
from dreamforge.events import EventBatch, GpuMeasured, Outcome
from dreamforge.jobs import AttemptState
from dreamforge_api.worker.projection import Changes, JobView

_ATTEMPT_STATES = {
    Outcome.SUCCEEDED: AttemptState.SUCCEEDED,
    Outcome.FAILED: AttemptState.FAILED,
    Outcome.CANCELED: AttemptState.STOPPED,
    Outcome.STOPPED: AttemptState.STOPPED,
}


def write(connection: Connection, batch: EventBatch, view: JobView, changes: Changes, number: int) -> None:
    """All of it, in the transaction that holds the job's lock."""
    where = {"job_id": batch.job_id, "step": batch.step}
    events.copy_rows(connection, batch.job_id, batch.step.value, changes.rows)
    if changes.items:
        rows = json.dumps([asdict(item) for item in changes.items.values()], default=str)
        connection.execute(ingest.UPSERT_ITEMS, {**where, "rows": rows})
    if changes.artifacts:
        connection.execute(artifacts.RECORD, {**where, "attempt": number, "rows": json.dumps(changes.artifacts)})
    finished = changes.finished
    connection.execute(
        ingest.ADVANCE,
        {
            **where,
            "status": view.status.value,
            "started_at": view.started_at,
            "progress": view.progress,
            "completed": view.completed,
            "attempt": number,
            "last_seq": view.last_seq,
            "producer_seq": batch.last_seq,
            "attempt_id": batch.attempt_id,
            "gpu": None if changes.gpu is None else _gpu_json(changes.gpu),
            "attempt_status": None if finished is None else _ATTEMPT_STATES[finished.outcome].value,
            "exit_code": None if finished is None else finished.exit_code,
            "error_code": finished.failure.code.value if finished is not None and finished.failure else None,
        },
    )


def write_late_gpu(connection: Connection, batch: EventBatch) -> None:
    """Of an attempt that may write nothing else any more."""
    for event in batch.events:
        if isinstance(event, GpuMeasured):
            where = {"job_id": batch.job_id, "step": batch.step, "attempt_id": batch.attempt_id}
            connection.execute(ingest.RECORD_GPU, {**where, "gpu": _gpu_json(event)})


def _gpu_json(event: GpuMeasured) -> str:
    return event.model_dump_json(exclude={"seq", "ts", "type"})
