"""Every statement of a request, a stream, ingest, a sweep and retention, with values as they come in real life.

Not among them: the count of jobs by status for ``/metrics`` (a count reads what it counts; asked for at most every
two seconds), and what a person asks for by hand, such as retention's dry run.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from sqlalchemy import Executable

from dreamforge.db import artifacts, deadletters, dispatch, events, ingest, jobs, registry, retention
from dreamforge.jobs import JobState
from dreamforge.models import SKETCH
from dreamforge_api.worker.ingest import new_id

STEP = "generate"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LONG = {"silence": 3600.0, "limit": 50}


class Statement(NamedTuple):
    """One statement as a process sends it."""

    name: str
    query: Executable
    parameters: Mapping[str, Any] = {}


class Jobs(NamedTuple):
    """Jobs of the database in question: one of each kind, and one that stands far back in the list."""

    succeeded: UUID
    running: UUID
    queued: UUID
    deep: UUID


def all_of(some: Jobs) -> list[Statement]:
    return [
        *_create(some),
        *_read(some),
        *_lists(some),
        *_stream(some),
        *_ingest(some),
        *_sweeps(),
        *_retention(some),
    ]


def _new_job() -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "id": new_id(), "owner": "default", "type": "generate", "provider": "local-sdxl", "model_id": SKETCH.id,
        "params": "{}", "preset": None, "labels": "{}", "warnings": "[]", "count": 1, "correlation_id": "bench",
        "created_at": now, "deadline_at": now + timedelta(days=1), "step": STEP,
    }  # fmt: skip


def _create(some: Jobs) -> list[Statement]:
    key = {"key": uuid4().hex, "body_hash": "0" * 64, "answer": "{}", "expires_at": datetime.now(UTC)}
    return [
        Statement("create", jobs.CREATE, _new_job()),
        Statement("create with key", jobs.CREATE_WITH_KEY, {**_new_job(), **key}),
        Statement("stored answer", jobs.stored_answer("default", "some-key")),
        Statement("queue depth", jobs.queue_depth(1001)),
        Statement("request cancel", jobs.REQUEST_CANCEL, {"job_id": some.queued}),
        Statement("lock job", jobs.LOCK, {"job_id": some.running}),
        Statement("finish", jobs.FINISH, jobs.finish_parameters(some.running, JobState.CANCELED, STEP)),
    ]


def _read(some: Jobs) -> list[Statement]:
    return [
        Statement("job", jobs.by_id(some.succeeded)),
        Statement("queued ahead", jobs.queued_ahead(some.queued)),
        Statement("pace of a model", jobs.recent_item_seconds(SKETCH.id)),
        Statement("pace of an unused model", jobs.recent_item_seconds("never-used")),
        Statement("steps", jobs.steps_of(some.succeeded)),
        Statement("items", jobs.items_of(some.succeeded)),
        Statement("artifacts", artifacts.of_job(some.succeeded)),
        Statement("dead letters", deadletters.LIST, {"limit": 50}),
        Statement("dead letters counted", deadletters.COUNT),
        Statement("queue delay", jobs.QUEUE_DELAY),
        Statement("live jobs of a model", registry.LIVE_JOBS, {"id": SKETCH.id}),
        Statement("history of a model", registry.history(SKETCH.id)),
    ]


def _lists(some: Jobs) -> list[Statement]:
    def page(name: str, **wanted: Any) -> Statement:
        return Statement(f"page {name}", jobs.page(limit=51, **wanted))

    return [
        page("first"),
        page("deep", before=some.deep),
        *[page(f"status={status}", status=status.value) for status in JobState],
        page("deep status=failed", before=some.deep, status="failed"),
        page("model", model_id=SKETCH.id),
        page("unused model", model_id="never-used"),
        page("status and model", status="canceled", model_id="sdxl-other"),
        page("status no model has", status="queued", model_id="never-used"),
        page("common label", labels={"project": "harbour"}),
        page("rare label", labels={"project": "rare"}),
        page("label of old jobs", labels={"project": "old"}),
        page("label nobody has", labels={"project": "none"}),
        page("label and status", labels={"project": "rare"}, status="succeeded"),
        Statement("queue positions", jobs.queue_positions([some.queued, some.running])),
    ]


def _stream(some: Jobs) -> list[Statement]:
    return [
        Statement("stream: newest events", events.tail(some.succeeded, 5000)),
        Statement("stream: next events", events.after(some.running, 12, 500)),
        Statement("logs", events.tail(some.succeeded, 1000)),
        Statement("logs since", events.tail(some.succeeded, 1000, datetime.now(UTC))),
    ]


def _ingest(some: Jobs) -> list[Statement]:
    where = {"job_id": some.running, "step": STEP}
    attempt = {"attempt_id": "run-9", "shard": 0, "number": 2}
    now = datetime.now(UTC)
    item = {"item_index": 0, "status": "running", "progress": 0.5, "seed": 1, "attempt": 1, "started_at": str(now)}
    advance = {
        "status": "running", "started_at": now, "progress": 0.5, "completed": 0, "attempt": 1, "last_seq": 40,
        "producer_seq": 40, "gpu": None, "attempt_status": None, "exit_code": None, "error_code": None,
    }  # fmt: skip
    register = {"backend": "sketch", "runner": "host", "started_at": now}
    return [
        Statement("ingest: lock", ingest.LOCK_JOB, {"job_id": some.running}),
        Statement("ingest: standing", ingest.STANDING, {**where, "shard": 0, "attempt_id": "run-9"}),
        Statement("ingest: register", ingest.REGISTER_ATTEMPT, {**where, **attempt, **register}),
        Statement("ingest: items", ingest.UPSERT_ITEMS, {**where, "rows": json.dumps([item])}),
        Statement("ingest: artifacts", artifacts.RECORD, {**where, "attempt": 1, "rows": "[]"}),
        Statement("ingest: advance", ingest.ADVANCE, {**where, "attempt_id": "run-9", **advance}),
        Statement("ingest: gpu", ingest.RECORD_GPU, {**where, "attempt_id": "run-9", "gpu": "{}"}),
        Statement("ingest: again", ingest.DISPATCH_AGAIN, {**where, "counted": 1, "delay": 1.0}),
    ]


def _sweeps() -> list[Statement]:
    job = {"job_id": new_id()}
    return [
        Statement("sweep: undispatched", dispatch.TAKE_UNDISPATCHED, {"limit": 50, "window": 64}),
        Statement("sweep: dispatched", dispatch.MARK_DISPATCHED, {**job, "kind": "local", "ref": "x"}),
        Statement("sweep: cancels", dispatch.CANCELS),
        Statement("sweep: unreleased", dispatch.UNRELEASED, {"limit": 50, "pause": 3}),
        Statement("sweep: released", dispatch.MARK_RELEASED, job),
        Statement("sweep: silent", dispatch.SILENT, _LONG),
        Statement("sweep: seen", dispatch.SEEN, job),
        Statement("sweep: lock silent", dispatch.LOCK_SILENT, {**job, "silence": 15.0}),
        Statement("sweep: lose attempts", dispatch.LOSE_ATTEMPTS, job),
        Statement("sweep: overdue", dispatch.OVERDUE, {"limit": 50}),
        Statement("sweep: queued too long", dispatch.QUEUED_TOO_LONG, {"seconds": 36000.0, "limit": 50}),
    ]


def _retention(some: Jobs) -> list[Statement]:
    def past(hours: float) -> dict[str, Any]:
        return {"hours": hours, "since": _EPOCH, "after": UUID(int=0), "limit": 100}

    one = {"jobs": [some.succeeded], "limit": 500}
    return [
        Statement("retention: artifacts due", retention.JOBS_WITH_ARTIFACTS, past(24)),
        Statement("retention: artifacts not due", retention.JOBS_WITH_ARTIFACTS, past(24_000)),
        Statement("retention: events not due", retention.JOBS_WITH_EVENTS, past(24_000)),
        Statement("retention: jobs not due", retention.JOBS, past(24_000)),
        Statement("retention: remove artifacts", retention.REMOVE_ARTIFACTS, one),
        Statement("retention: remove events", retention.REMOVE_EVENTS, one),
        Statement("retention: remove jobs", retention.REMOVE_JOBS, {"jobs": [some.succeeded]}),
        Statement("retention: remove keys", retention.REMOVE_KEYS, {"limit": 500}),
        Statement("retention: jobs of objects", retention.JOBS_OF_OBJECTS, {"jobs": [some.succeeded]}),
        Statement("retention: objects' artifacts", retention.ARTIFACTS_OF_OBJECTS, {"jobs": [some.succeeded]}),
    ]
