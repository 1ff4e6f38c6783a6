"""What the API does with jobs: create one, read one, list many, ask one to stop."""

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from dreamforge import telemetry
from dreamforge.crashpoints import CrashPoint, reach
from dreamforge.db import jobs
from dreamforge.errors import ErrorCode
from dreamforge.jobs import JobState, StepName
from dreamforge_api import metrics, times
from dreamforge_api.bus import Bus
from dreamforge_api.database import Database, LockTimeout
from dreamforge_api.jobs import intake, resource
from dreamforge_api.jobs.admission import Admission
from dreamforge_api.jobs.pace import Pace
from dreamforge_api.jobs.schemas import CreateJobRequest
from dreamforge_api.models.catalog import Catalog
from dreamforge_api.problem import Problem, busy, not_found

OWNER = "default"
_log = telemetry.logger(__name__)
STEP = StepName.GENERATE.value


class Lifetimes(NamedTuple):
    """How long things made now are good for."""

    job: timedelta
    idempotency_key: timedelta


class Created(NamedTuple):
    """The answer to a create: its bytes are what a replay sends again."""

    job_id: UUID
    content: bytes
    replayed: bool = False


class Filter(NamedTuple):
    """Which jobs a list shows."""

    status: JobState | None = None
    model_id: str | None = None
    labels: Mapping[str, str] = {}


class JobService:
    """Jobs as the REST calls see them."""

    def __init__(
        self, database: Database, catalog: Catalog, admission: Admission, bus: Bus, lifetimes: Lifetimes
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._admission = admission
        self._bus = bus
        self._lifetimes = lifetimes
        self._pace = Pace(database)

    async def create(self, request: CreateJobRequest, correlation_id: str, key: str | None) -> Created:
        """Write the job, its step and its key in one transaction; raises :class:`Problem`."""
        try:
            return await self._create(request, correlation_id, key)
        except Problem:
            # What this key was answered before stands, whatever has become full or been switched off since.
            if key is not None and (stored := await self._stored(key, intake.fingerprint(request))):
                return stored
            raise

    async def _create(self, request: CreateJobRequest, correlation_id: str, key: str | None) -> Created:
        choice = await self._catalog.choose(request.model_id, request.provider)
        filled = intake.with_preset(request, choice.presets)
        warnings = intake.warnings_of(request)
        if choice.warning:
            warnings.append(choice.warning)
        with self._admission.writing() as held_before:
            await self._admission.require_place(held_before)
            columns = self._columns(filled, choice.model_id, warnings)
            made = resource.fresh(
                columns,
                queue_position=self._admission.added(),
                seconds_per_item=self._pace.last_known(choice.model_id),
            )
            created = Created(columns["id"], to_json(made))
            parameters = _parameters(columns, correlation_id)
            if key is None:
                await self._database.write(jobs.CREATE, parameters)
            else:
                created = await self._create_once(request, key, parameters, created)
        reach(CrashPoint.API_JOB_COMMITTED)
        if not created.replayed:
            self._bus.wake()
            _log.info("job accepted", job_id=str(created.job_id), step=STEP)
        return created

    async def _create_once(
        self, request: CreateJobRequest, key: str, parameters: dict[str, Any], created: Created
    ) -> Created:
        body_hash = intake.fingerprint(request)
        parameters |= {
            "key": key,
            "body_hash": body_hash,
            "answer": created.content.decode(),
            "expires_at": parameters["created_at"] + self._lifetimes.idempotency_key,
        }
        for _ in range(2):  # the key that was in the way may have expired in between
            try:
                found = await self._database.write(jobs.CREATE_WITH_KEY, parameters)
            except LockTimeout:
                break
            if found and found[0][1] is None:
                return created
            stored = _replay(found[0], body_hash) if found else await self._stored(key, body_hash)
            if stored is not None:
                return stored._replace(replayed=stored.job_id != created.job_id)
        raise busy(ErrorCode.IDEMPOTENCY_KEY_IN_USE, "The first request with this Idempotency-Key is still running")

    async def _stored(self, key: str, body_hash: str) -> Created | None:
        """The answer this key was given; raises when it was for another body."""
        row = await self._database.row(jobs.stored_answer(OWNER, key))
        return None if row is None else _replay(tuple(row.values()), body_hash)

    def _columns(self, request: CreateJobRequest, model_id: str, warnings: list[str]) -> dict[str, Any]:
        created_at = times.now()
        return {
            "id": uuid7(),
            "type": request.type,
            "provider": request.provider,
            "model_id": model_id,
            "params": intake.params_of(request),
            "preset": request.preset,
            "labels": request.labels,
            "warnings": warnings,
            "count": request.count,
            "created_at": created_at,
            "deadline_at": created_at + self._lifetimes.job,
        }

    async def get(self, job_id: UUID) -> dict[str, Any]:
        """One job's resource; raises a 404 :class:`Problem`."""
        row, position = await self.row_and_position(job_id)
        return await self._resource(row, position)

    async def row_and_position(self, job_id: UUID) -> tuple[RowMapping, int | None]:
        """A job's row and its place in the queue; raises a 404 :class:`Problem`."""

        async def work(connection: AsyncConnection) -> tuple[RowMapping | None, int | None]:
            row = (await connection.execute(jobs.by_id(job_id))).mappings().first()
            if row is None or row["status"] != JobState.QUEUED:
                return row, None
            ahead = (await connection.execute(jobs.queued_ahead(job_id))).scalar_one()
            return row, int(ahead) + 1

        row, position = await self._database.run(work)
        if row is None:
            raise not_found("There is no such job")
        return row, position

    async def seconds_per_item(self, row: RowMapping) -> float | None:
        """The model's pace, asked for live jobs only."""
        if JobState(row["status"]).terminal:
            return None
        return await self._pace.seconds_per_item(row["model_id"])

    async def page(self, wanted: Filter, limit: int, before: UUID | None) -> tuple[list[dict[str, Any]], UUID | None]:
        """Resources, newest first, and the id to go on from (``None`` on the last page)."""
        query = jobs.page(
            limit=limit + 1,
            before=before,
            status=wanted.status,
            model_id=wanted.model_id,
            labels=wanted.labels,
        )
        rows = await self._database.rows(query)
        shown = rows[:limit]
        positions = await self._positions(shown)
        items = [await self._resource(row, positions.get(row["id"])) for row in shown]
        return items, shown[-1]["id"] if len(rows) > limit else None

    async def cancel(self, job_id: UUID) -> tuple[dict[str, Any], bool]:
        """Ask a job to stop; gives its resource and whether there was something to stop."""
        asked = await self._database.row(jobs.REQUEST_CANCEL, {"job_id": job_id})
        if asked is None:
            return await self.get(job_id), False
        reach(CrashPoint.API_CANCEL_COMMITTED)
        _log.info("cancel requested", job_id=str(job_id), step=STEP)
        if asked["status"] == JobState.QUEUED:
            await self._finish_queued(job_id)
        self._bus.wake()
        return await self.get(job_id), True

    async def _finish_queued(self, job_id: UUID) -> None:
        """Nothing runs yet, so nothing has to be waited for. A job that just started keeps its request instead."""
        sources = frozenset({JobState.QUEUED})
        parameters = jobs.finish_parameters(job_id, JobState.CANCELED, STEP, sources=sources)
        ended = await self._database.row(jobs.FINISH, parameters)
        if ended is None:
            return
        self._bus.announce(job_id, ended["seq"])
        row, _ = await self.row_and_position(job_id)
        age = resource.age_seconds(row, times.now())
        metrics.JOB_DURATION.labels(JobState.CANCELED.value).observe(age)

    async def _resource(self, row: RowMapping, position: int | None) -> dict[str, Any]:
        return resource.from_row(row, queue_position=position, seconds_per_item=await self.seconds_per_item(row))

    async def _positions(self, rows: Sequence[RowMapping]) -> dict[UUID, int]:
        queued = [row["id"] for row in rows if row["status"] == JobState.QUEUED]
        if not queued:
            return {}
        found = await self._database.rows(jobs.queue_positions(queued))
        return {row["id"]: row["position"] for row in found}


def _replay(stored: Sequence[Any], body_hash: str) -> Created:
    """The answer in ``job_id, body_hash, answer``; raises when it was given to another body."""
    job_id, stored_hash, answer = stored
    if stored_hash != body_hash:
        raise Problem(
            ErrorCode.IDEMPOTENCY_KEY_REUSED, "This Idempotency-Key was used with another body; draw a new one"
        )
    return Created(job_id, answer.encode(), replayed=True)


def _parameters(columns: dict[str, Any], correlation_id: str) -> dict[str, Any]:
    """Parameters of ``jobs.CREATE``."""
    return {
        **columns,
        "owner": OWNER,
        "params": json.dumps(columns["params"]),
        "labels": json.dumps(columns["labels"]),
        "warnings": json.dumps(columns["warnings"]),
        "correlation_id": correlation_id,
        "step": STEP,
    }
