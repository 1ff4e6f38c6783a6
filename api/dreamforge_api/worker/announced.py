"""What a cluster tells of its jobs becomes rows: one announcement, one transaction, guarded by the job's state.

A RenderJob that a person applied becomes a job here, by the same rules as a request. Announcements are repeated until
they are answered, so each of them may come twice, late, or for a job that is over or unknown.
"""

import json
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import Connection, Engine, Row

from dreamforge import telemetry
from dreamforge.announcements import (
    Announcement,
    EndedAs,
    JobCancelRequested,
    JobDeleted,
    JobEnded,
    JobRegistered,
    JobWaiting,
    Reception,
)
from dreamforge.db import announced, jobs, registry
from dreamforge.errors import ErrorCode
from dreamforge.events import Failure, Level
from dreamforge.jobs import JobState, StepName
from dreamforge.models import BackendMode
from dreamforge.renderjob.names import resource_name
from dreamforge.spec import Labels, RenderParams, StrictModel
from dreamforge_api.models.choice import SEED_IGNORED, NoModel, choose
from dreamforge_api.worker import outcomes
from dreamforge_api.worker.ingest import CLUSTER, finish
from dreamforge_api.worker.retry import Decision, Then

log = telemetry.logger("announced")
STEP = StepName.GENERATE.value
_OWNER = "default"


@dataclass(frozen=True)
class ModelRule:
    """What decides a job's model where it names none; the same settings as the API's."""

    mode: BackendMode
    configured: str | None = None


class Received(NamedTuple):
    """What became of an announcement. ``seq``: the job's newest event, when there is one more.

    ``images_missing``: the cluster says the job succeeded, and no row tells of all its images. ``decision``: how this
    ended the job, ``seconds`` after its creation.
    """

    reception: Reception
    seq: int | None = None
    code: ErrorCode | None = None
    message: str = ""
    images_missing: bool = False
    decision: Decision | None = None
    seconds: float | None = None


class _Given(StrictModel):
    """What a person wrote in a RenderJob, by the rules of a request."""

    params: RenderParams
    labels: Labels


def receive(engine: Engine, announcement: Announcement, rule: ModelRule) -> Received:
    """Commit one announcement. Raises what SQLAlchemy raises when the database is away; nothing was written then."""
    with engine.begin() as connection:
        row = connection.execute(announced.LOCK, {"job_id": announcement.job_id}).one_or_none()
        if row is None:
            if isinstance(announcement, JobRegistered):
                return _register(connection, announcement, rule)
            return Received(Reception.UNKNOWN_JOB)
        if not _is_of(row, announcement):
            message = f"job {announcement.job_id} belongs to another object"
            return Received(Reception.TAKEN, message=message)
        if JobState(row.status).terminal:
            return Received(Reception.OVER)
        return _apply(connection, row, announcement)


def _is_of(row: Row[Any], announcement: Announcement) -> bool:
    """Whether this object may speak for the job: the one the job was handed to, or made as."""
    if row.executor_ref is not None:
        return bool(row.executor_ref == announcement.ref)
    # The control loop made the object, and its note of that is not committed yet, or was lost.
    return announcement.name == resource_name(announcement.job_id)


def _apply(connection: Connection, row: Row[Any], announcement: Announcement) -> Received:
    job_id = announcement.job_id
    match announcement:
        case JobRegistered():
            return Received(Reception.RECORDED)
        case JobCancelRequested():
            connection.execute(jobs.REQUEST_CANCEL, {"job_id": job_id})
            return Received(Reception.RECORDED)
        case JobDeleted():
            remark(connection, announcement, Level.INFO, "renderjob.deleted", "the RenderJob was deleted")
            return end(connection, job_id, Decision(Then.CANCEL))
        case JobWaiting(level=level, reason=reason, message=message):
            return Received(Reception.RECORDED, remark(connection, announcement, level, reason, message))
        case JobEnded():
            return _ended(connection, row, announcement)


def _ended(connection: Connection, row: Row[Any], ended: JobEnded) -> Received:
    if ended.outcome is EndedAs.SUCCEEDED:
        return Received(Reception.RECORDED, images_missing=True)
    if ended.outcome is EndedAs.CANCELED or row.cancel_requested:
        return end(connection, ended.job_id, Decision(Then.CANCEL))
    failure = ended.failure or Failure(code=ErrorCode.INTERNAL, message="the cluster did not say why the job failed")
    return end(connection, ended.job_id, Decision(Then.FAIL, failure))


def end(connection: Connection, job_id: UUID, decision: Decision) -> Received:
    """End the job, unless it is over: as canceled, or as failed."""
    failure = decision.failure
    seq = finish(connection, job_id, JobState.FAILED if failure else JobState.CANCELED, STEP, decision)
    received = Received(Reception.RECORDED, seq, failure.code if failure else None)
    if seq is None:
        return received
    return received._replace(decision=decision, seconds=outcomes.age(connection, job_id))


def remark(connection: Connection, announcement: Announcement, level: Level, code: str, message: str) -> int | None:
    """A log event in the cluster's own words; None when it is the one before once more."""
    words = {"level": level.value, "code": code, "message": message}
    about = {"job_id": announcement.job_id, "step": STEP, "source": announcement.uid, "ts": announcement.ts}
    return connection.execute(announced.REMARK, {**about, **words}).scalar_one_or_none()


def _register(connection: Connection, told: JobRegistered, rule: ModelRule) -> Received:
    if told.params is None:
        message = "inputSecretRef is for jobs that the API made, and it knows of none with this id; use input"
        return Received(Reception.INVALID, code=ErrorCode.INVALID_INPUT, message=message)
    try:
        given = _Given.model_validate_json(json.dumps({"params": told.params, "labels": told.labels}))
    except ValidationError as error:
        return Received(Reception.INVALID, code=ErrorCode.INVALID_INPUT, message=_rules_broken(error))
    rows = connection.execute(registry.listing(enabled_only=False)).mappings().all()
    try:
        choice = choose(rows, told.model_id, told.provider, rule.mode, rule.configured)
    except NoModel as error:
        return _without_model(connection, told, given, str(error))
    warnings = [choice.warning] if choice.warning else []
    connection.execute(announced.REGISTER, _columns(told, given, choice.model_id, warnings))
    log.info("job registered", executor=CLUSTER)
    return Received(Reception.RECORDED)


def _without_model(connection: Connection, told: JobRegistered, given: _Given, message: str) -> Received:
    """The job is listed, as failed: who applied it finds out by every way there is."""
    connection.execute(announced.REGISTER, _columns(told, given, told.model_id or "unknown", []))
    decision = Decision(Then.FAIL, Failure(code=ErrorCode.UNKNOWN_MODEL, message=message))
    return end(connection, told.job_id, decision)._replace(reception=Reception.UNKNOWN_MODEL, message=message)


def _columns(told: JobRegistered, given: _Given, model_id: str, warnings: list[str]) -> dict[str, object]:
    params = given.params
    if params.count > 1 and params.seed is not None:
        params = params.model_copy(update={"seed": None})
        warnings = [*warnings, SEED_IGNORED]
    return {
        "id": told.job_id,
        "owner": _OWNER,
        "type": STEP,
        "provider": told.provider,
        "model_id": model_id,
        "params": params.model_dump_json(),
        "labels": json.dumps(given.labels),
        "warnings": json.dumps(warnings),
        "count": params.count,
        "correlation_id": told.correlation_id,
        "created_at": told.created_at,
        "deadline_at": told.deadline_at,
        "executor_kind": CLUSTER,
        "executor_ref": told.ref,
        "step": STEP,
    }


def _rules_broken(error: ValidationError) -> str:
    """Which field breaks which rule; never what stood there."""
    found = error.errors(include_input=False, include_context=False, include_url=False)
    return "; ".join(f"{'.'.join(map(str, item['loc'][1:]))}: {item['msg']}" for item in found)[:1000]
