"""The control loop: rows become work, cancels and deadlines are enforced, vanished runners are found.

It is woken at once and sweeps anyway, so a lost wake-up costs a second and a lost message nothing. Every duty is
idempotent and takes its rows under locks, so several loops may run side by side.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import Connection, Engine, Row
from sqlalchemy.exc import DBAPIError

from dreamforge import telemetry
from dreamforge.crashpoints import CrashPoint, reach
from dreamforge.db import dispatch, ingest
from dreamforge.errors import ErrorCode, JobError, Unavailable
from dreamforge.events import Failure, Level
from dreamforge.jobs import JobState, StepName
from dreamforge.spec import Limits
from dreamforge_api import metrics
from dreamforge_api.execution.base import Executor, Liveness, Refused
from dreamforge_api.worker import outcomes
from dreamforge_api.worker.ingest import finish
from dreamforge_api.worker.models import render_spec
from dreamforge_api.worker.retry import Decision, RetryPolicy, Standing, Then, after_failure

log = telemetry.logger("control")
STEP = StepName.GENERATE.value


@dataclass(frozen=True)
class ControlPolicy:
    """Bounds of the loop, in seconds and rows."""

    sweep_seconds: float = 1.0
    #: A job nobody heard of for this long is looked into; longer than a runner's lease.
    silence_seconds: float = 15.0
    #: A canceled job that is still running after this long is ended whatever its runner says.
    cancel_seconds: float = 10.0
    #: A job that no runner took for this long fails; 0: it may wait until its deadline.
    queue_seconds: float = 0.0
    batch: int = 50
    #: Jobs handed to the executor ahead of a runner; the rest wait in Postgres.
    window: int = 64


class Announce(Protocol):
    """Tells readers that a job has news."""

    def __call__(self, job_id: UUID, seq: int) -> None: ...


class ControlLoop:
    """One pass of every duty is :meth:`sweep`; :meth:`run` repeats it until told to stop."""

    def __init__(
        self,
        engine: Engine,
        executor: Executor,
        announce: Announce,
        *,
        policy: ControlPolicy,
        retry: RetryPolicy,
        limits: Limits,
    ) -> None:
        self._engine = engine
        self._executor = executor
        self._announce = announce
        self._policy = policy
        self._retry = retry
        self._limits = limits
        self.last_sweep = time.monotonic()

    def run(self, wait: Callable[[float], None], stopping: Callable[[], bool]) -> None:
        """Sweep until ``stopping``; ``wait(seconds)`` returns early when there is news."""
        duties = (self.cancel, self.dispatch, self.expire, self.expire_queued, self.find_lost)
        while not stopping():
            for duty in duties:
                try:
                    duty()
                except (Unavailable, DBAPIError) as error:
                    log.warning(
                        "a dependency is away; the next sweep tries again", duty=duty.__name__, error=str(error)
                    )
                    break
            else:
                self.last_sweep = time.monotonic()
            wait(self._policy.sweep_seconds)

    def dispatch(self) -> int:
        """Hand waiting jobs to the executor, oldest first; how many."""
        done = 0
        with self._engine.begin() as connection:
            room = self._policy.window - int(connection.execute(dispatch.COUNT_WAITING).scalar_one())
            limit = min(room, self._policy.batch)
            if limit <= 0:
                return 0
            for row in connection.execute(dispatch.TAKE_UNDISPATCHED, {"limit": limit}).all():
                with telemetry.bound(job_id=row.id, step=STEP, correlation_id=row.correlation_id):
                    self._dispatch_one(connection, row)
                done += 1
        return done

    def _dispatch_one(self, connection: Connection, row: Row[Any]) -> None:
        try:
            spec = render_spec(connection, row, self._limits)
            reach(CrashPoint.CONTROL_BEFORE_SUBMIT)
            reference = self._executor.submit(spec)
            reach(CrashPoint.CONTROL_SUBMITTED)
        except (JobError, Refused) as error:
            code = error.code if isinstance(error, JobError) else ErrorCode.DISPATCH_REFUSED
            self._fail(connection, row.id, Failure(code=code, message=str(error)))
            return
        parameters = {"job_id": row.id, "kind": self._executor.kind, "ref": reference}
        connection.execute(dispatch.MARK_DISPATCHED, parameters)
        log.info("dispatched", executor=self._executor.kind)

    def cancel(self) -> int:
        """Pass cancels on, again on every sweep, and end what does not stop by itself; how many were looked at."""
        with self._engine.connect() as connection:
            asked = connection.execute(dispatch.CANCELS).all()
            untold = connection.execute(dispatch.CANCELS_UNTOLD, {"limit": self._policy.batch}).scalars().all()
        for job_id in untold:
            self._executor.cancel(job_id)
            reach(CrashPoint.CONTROL_CANCEL_TOLD)
            with self._engine.begin() as connection:
                connection.execute(dispatch.MARK_TOLD, {"job_id": job_id})
        for row in asked:
            if row.dispatched:
                self._executor.cancel(row.id)
            if not self._stops_by_itself(row) and self._end(row.id, JobState.CANCELED):
                metrics.CANCELS.labels("control").inc()
        return len(asked) + len(untold)

    def _stops_by_itself(self, row: Row[Any]) -> bool:
        """Whether a runner is on it that will say goodbye; a job between two attempts has none."""
        if not row.dispatched:
            return False
        if row.asked_seconds > self._policy.cancel_seconds:
            return False
        alive = self._executor.liveness(row.id) is Liveness.ALIVE
        # Right after a runner let go of its lease its last events may still be on their way.
        return alive or row.asked_seconds < self._policy.cancel_seconds / 2

    def expire(self) -> int:
        """End jobs whose deadline passed; how many."""
        with self._engine.connect() as connection:
            overdue = connection.execute(dispatch.OVERDUE, {"limit": self._policy.batch}).scalars().all()
        for job_id in overdue:
            self._executor.cancel(job_id)
            failure = Failure(code=ErrorCode.JOB_TIMEOUT, message="the job's deadline passed before it was done")
            if self._end(job_id, JobState.FAILED, failure):
                metrics.DEADLINES.labels("job").inc()
        return len(overdue)

    def expire_queued(self) -> int:
        """End jobs that no runner took in time; how many were looked at."""
        seconds = self._policy.queue_seconds
        if not seconds:
            return 0
        bounds = {"seconds": seconds, "limit": self._policy.batch}
        with self._engine.connect() as connection:
            stale = connection.execute(dispatch.QUEUED_TOO_LONG, bounds).scalars().all()
        message = f"the job waited longer than {seconds:g} s for a runner (DF_QUEUE_TIMEOUT_SECONDS)"
        failure = Failure(code=ErrorCode.JOB_TIMEOUT, message=message)
        for job_id in stale:
            # Ended first: a job that has just started must not meet a cancel nobody asked for.
            if self._end(job_id, JobState.FAILED, failure, sources=frozenset({JobState.QUEUED})):
                metrics.DEADLINES.labels("queue").inc()
                self._executor.cancel(job_id)
        return len(stale)

    def find_lost(self) -> int:
        """Look into dispatched jobs that fell silent; how many were lost."""
        bounds = {"silence": self._policy.silence_seconds, "limit": self._policy.batch}
        with self._engine.connect() as connection:
            silent = connection.execute(dispatch.SILENT, bounds).all()
        lost = 0
        for row in silent:
            known = self._executor.liveness(row.id)
            if known in (Liveness.ALIVE, Liveness.WAITING):
                with self._engine.begin() as connection:
                    connection.execute(dispatch.SEEN, {"job_id": row.id})
            else:
                lost += self._recover(row.id)
        return lost

    def _recover(self, job_id: UUID) -> bool:
        """The executor knows nothing of a dispatched job: start it again, or fail it after too many tries."""
        with self._engine.begin() as connection:
            bounds = {"job_id": job_id, "silence": self._policy.silence_seconds}
            row = connection.execute(dispatch.LOCK_SILENT, bounds).one_or_none()
            if row is None:
                return False
            if row.status == JobState.QUEUED:
                # No runner ever reported: the message was lost, not an attempt.
                decision = Decision(Then.AGAIN)
            else:
                failure = Failure(code=ErrorCode.RUNNER_LOST, message="the runner vanished while it had the job")
                standing = Standing(row.failures, row.cancel_requested, row.completed, row.item_count)
                decision = after_failure(failure, standing, self._retry)
                connection.execute(dispatch.LOSE_ATTEMPTS, {"job_id": job_id})
            seq = self._follow(connection, job_id, decision)
        log.warning("lost a job's runner", job_id=str(job_id), then=decision.then)
        if row.status != JobState.QUEUED:
            metrics.RUNNERS_LOST.inc()
        again = "lost_message" if row.status == JobState.QUEUED else "lost_runner"
        outcomes.note(job_id, decision, again=again, by="control")
        self._tell(job_id, seq)
        return True

    def _follow(self, connection: Connection, job_id: UUID, decision: Decision) -> int | None:
        if decision.then is Then.AGAIN:
            parameters = {"job_id": job_id, "counted": decision.counted, "delay": decision.delay}
            connection.execute(ingest.DISPATCH_AGAIN, parameters)
            note = {"job_id": job_id, "step": STEP, "level": Level.WARNING.value, "code": "runner.lost"}
            message = "the runner was lost; the job is handed out again"
            return connection.execute(dispatch.NOTE, {**note, "message": message}).scalar_one_or_none()
        if decision.then is Then.CANCEL:
            return finish(connection, job_id, JobState.CANCELED, STEP)
        if decision.failure is not None:
            metrics.ERRORS.labels(decision.failure.code).inc()
        return finish(connection, job_id, JobState.FAILED, STEP, decision)

    def _fail(self, connection: Connection, job_id: UUID, failure: Failure) -> None:
        metrics.ERRORS.labels(failure.code).inc()
        seq = finish(connection, job_id, JobState.FAILED, STEP, Decision(Then.FAIL, failure))
        self._tell(job_id, seq)

    def _end(
        self,
        job_id: UUID,
        target: JobState,
        failure: Failure | None = None,
        *,
        sources: frozenset[JobState] | None = None,
    ) -> bool:
        """End the job, if it is still live (or in ``sources``); whether this call did."""
        with self._engine.begin() as connection:
            decision = None if failure is None else Decision(Then.FAIL, failure)
            seq = finish(connection, job_id, target, STEP, decision, sources=sources)
        if failure is not None and seq is not None:
            metrics.ERRORS.labels(failure.code).inc()
        self._tell(job_id, seq)
        return seq is not None

    def _tell(self, job_id: UUID, seq: int | None) -> None:
        if seq is not None:
            self._announce(job_id, seq)
