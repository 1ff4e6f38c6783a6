"""One batch of events, one transaction: rows, guarded state moves, and what follows an attempt's end.

The job row's lock comes first, so one job's batches are applied one after another whichever worker has them. An
attempt's events are accepted in order and once: a batch chains to the one before it by ``prev_seq``.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import uuid_utils
from sqlalchemy import Connection, Engine, Row

from dreamforge import telemetry
from dreamforge.announcements import Progress
from dreamforge.crashpoints import CrashPoint, reach
from dreamforge.db import ingest, jobs
from dreamforge.errors import FACTS, DreamForgeError
from dreamforge.events import AttemptFinished, AttemptStarted, EventBatch, Level, Verdict
from dreamforge.jobs import TERMINAL_STATES, ItemState, JobState
from dreamforge.spec import Shard
from dreamforge_api.worker.projection import Changes, Item, JobView, Projector
from dreamforge_api.worker.retry import Decision, RetryPolicy, Standing, Then, after
from dreamforge_api.worker.writing import write, write_late_gpu

log = telemetry.logger("ingest")

#: ``executor_kind`` of jobs that run on a cluster, which starts their attempts.
CLUSTER = "kubernetes"


class BadBatch(DreamForgeError):
    """The batch breaks the protocol; it will never be accepted and belongs with the dead letters."""


class Ingested(NamedTuple):
    """What became of one batch, for the ack, the wake-ups and the metrics."""

    verdict: Verdict
    acked_seq: int
    job_seq: int = 0
    changes: Changes | None = None
    decision: Decision | None = None
    started: datetime | None = None
    created: datetime | None = None
    model_kind: str = ""
    progress: Progress | None = None


class _Attempt(NamedTuple):
    number: int
    last_producer_seq: int
    newest: int
    item_rows: list[dict[str, Any]]
    other_shards_done: int


def new_id() -> UUID:
    """A time-ordered id (UUIDv7)."""
    return UUID(int=uuid_utils.uuid7().int)


def ingest_batch(
    engine: Engine, batch: EventBatch, policy: RetryPolicy, *, unknown_for: timedelta = timedelta()
) -> Ingested:
    """Commit ``batch`` and say how far its attempt's events are safe. Raises :class:`BadBatch` and what SQLAlchemy
    raises when the database is away; nothing was written then.

    An unknown job is waited for: until ``unknown_for`` after the attempt's first event, its runner keeps its events
    and sends them again. The announcement of a RenderJob may have been lost and come a second time.
    """
    with engine.begin() as connection:
        job = connection.execute(ingest.LOCK_JOB, {"job_id": batch.job_id, "step": batch.step}).one_or_none()
        if job is None:
            if unknown_for and datetime.now(UTC) - batch.events[0].ts < unknown_for:
                return Ingested(Verdict.GAP, 0)
            return Ingested(Verdict.REFUSED_UNKNOWN_JOB, batch.last_seq)
        attempt = _attempt(connection, batch)
        if batch.last_seq <= attempt.last_producer_seq:
            return Ingested(Verdict.COMMITTED, attempt.last_producer_seq)
        if JobState(job.status) in TERMINAL_STATES:
            write_late_gpu(connection, batch)
            return Ingested(Verdict.REFUSED_TERMINAL, batch.last_seq)
        if attempt.number < attempt.newest:
            write_late_gpu(connection, batch)
            return Ingested(Verdict.REFUSED_FENCED, batch.last_seq)
        if batch.prev_seq > attempt.last_producer_seq:
            return Ingested(Verdict.GAP, attempt.last_producer_seq)
        return _apply(connection, batch, job, attempt, policy)


def _attempt(connection: Connection, batch: EventBatch) -> _Attempt:
    """The batch's attempt; a new one gets the shard's next number, but is registered only when accepted."""
    found = connection.execute(
        ingest.STANDING,
        {"job_id": batch.job_id, "step": batch.step, "shard": batch.shard, "attempt_id": batch.attempt_id},
    ).one()
    if found.number is None:
        number = (found.newest or 0) + 1
        return _Attempt(number, 0, number, found.item_rows, found.other_shards_done)
    return _Attempt(found.number, found.last_producer_seq, found.newest, found.item_rows, found.other_shards_done)


def _apply(
    connection: Connection, batch: EventBatch, row: Row[Any], attempt: _Attempt, policy: RetryPolicy
) -> Ingested:
    fresh = [event for event in batch.events if event.seq > attempt.last_producer_seq]
    if attempt.last_producer_seq == 0:
        _register(connection, batch, attempt.number)
    view = _view(row, attempt.item_rows)
    was_queued = view.status is JobState.QUEUED
    projector = Projector(view, batch.attempt_id, attempt.number, new_id)
    changes = projector.apply(fresh)
    decision = _decide(row, batch, view, attempt, changes.finished, policy)
    if decision is not None and decision.then is Then.AGAIN and changes.finished is not None:
        when = f" in {decision.delay:.1f} s" if decision.delay else ""
        message = f"attempt {attempt.number} will be followed by another{when}"
        projector.note(changes.finished.ts, Level.INFO, "attempt.retry", message)
    for item in changes.items.values():
        if item.item_index >= view.count:
            raise BadBatch(f"item {item.item_index} of a job with {view.count} items")
    write(connection, batch, view, changes, attempt.number)
    if decision is not None:
        _follow(connection, batch, decision)
    reach(CrashPoint.INGEST_ROWS_WRITTEN)
    return Ingested(
        Verdict.COMMITTED,
        batch.last_seq,
        view.last_seq,
        changes,
        decision,
        started=view.started_at if was_queued and view.status is JobState.RUNNING else None,
        created=row.created_at,
        model_kind=row.model_kind or "unknown",
        progress=_progress(row, view, attempt.number),
    )


def _register(connection: Connection, batch: EventBatch, number: int) -> None:
    first = batch.events[0]
    if not isinstance(first, AttemptStarted):
        raise BadBatch(f"attempt {batch.attempt_id} does not begin with attempt.started but {first.type}")
    connection.execute(
        ingest.REGISTER_ATTEMPT,
        {
            "attempt_id": batch.attempt_id,
            "job_id": batch.job_id,
            "step": batch.step,
            "shard": batch.shard,
            "number": number,
            "backend": first.backend,
            "runner": first.runner,
            "started_at": first.ts,
        },
    )


def _view(row: Row[Any], item_rows: list[dict[str, Any]]) -> JobView:
    items = {
        raw["item_index"]: Item(
            raw["item_index"],
            ItemState(raw["status"]),
            raw["progress"],
            raw["seed"],
            raw["attempt"],
            _time(raw["started_at"]),
            _time(raw["finished_at"]),
        )
        for raw in item_rows
    }
    return JobView(
        JobState(row.status),
        row.item_count,
        row.steps_total or 1,
        row.last_seq,
        row.progress,
        row.completed,
        items,
        row.started_at,
    )


def _time(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value)


def _decide(
    row: Row[Any],
    batch: EventBatch,
    view: JobView,
    attempt: _Attempt,
    finished: AttemptFinished | None,
    policy: RetryPolicy,
) -> Decision | None:
    if finished is None:
        return None
    own = Shard(index=batch.shard, count=batch.shards).items(view.count)
    standing = Standing(
        row.failures,
        row.cancel_requested,
        sum(index in view.items and view.items[index].status is ItemState.SUCCEEDED for index in own),
        len(own),
        shards_left=batch.shards - 1 - attempt.other_shards_done,
        retried_by_cluster=row.executor_kind == CLUSTER,
    )
    return after(finished.outcome, finished.failure, standing, policy)


def _progress(row: Row[Any], view: JobView, attempt: int) -> Progress | None:
    """For the status of the job's RenderJob."""
    if row.executor_kind != CLUSTER:
        return None
    done = {"progress": view.progress, "items_done": view.completed, "items_total": view.count}
    return Progress(job_id=row.id, attempt=attempt, **done)


def _follow(connection: Connection, batch: EventBatch, decision: Decision) -> None:
    """Carry out what follows the attempt, in the same transaction."""
    match decision.then:
        case Then.GO_ON:
            return
        case Then.AGAIN:
            parameters = {"job_id": batch.job_id, "counted": decision.counted, "delay": decision.delay}
            connection.execute(ingest.DISPATCH_AGAIN, parameters)
        case Then.SUCCEED:
            finish(connection, batch.job_id, JobState.SUCCEEDED, batch.step)
        case Then.CANCEL:
            finish(connection, batch.job_id, JobState.CANCELED, batch.step)
        case Then.FAIL:
            finish(connection, batch.job_id, JobState.FAILED, batch.step, decision)


def finish(
    connection: Connection,
    job_id: UUID,
    target: JobState,
    step: str,
    decision: Decision | None = None,
    *,
    sources: frozenset[JobState] | None = None,
) -> int | None:
    """End the job; the ``seq`` of its terminal event, or None when it was over (or not in ``sources``) already."""
    error = None
    if target is JobState.FAILED:
        if decision is None or decision.failure is None:
            raise ValueError("a failed job needs a failure")
        failure = decision.failure
        error = {
            "code": failure.code.value,
            "message": failure.message,
            "retryable": FACTS[failure.code].retryable,
            "item_index": failure.item_index,
        }
    connection.execute(jobs.LOCK, {"job_id": job_id})
    parameters = jobs.finish_parameters(job_id, target, step, sources=sources, error=error)
    return connection.execute(jobs.FINISH, parameters).scalar_one_or_none()
