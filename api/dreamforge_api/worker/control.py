"""The control loop: rows become work, cancels and deadlines are enforced, vanished runners are found.

It is woken at once and sweeps anyway, so a lost wake-up costs a second and a lost message nothing. Every duty is
idempotent and takes its rows under locks, so several loops may run side by side.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import Connection, Engine, Row
from sqlalchemy.exc import DBAPIError

from dreamforge import telemetry
from dreamforge.crashpoints import CrashPoint, reach
from dreamforge.db import dispatch
from dreamforge.errors import ErrorCode, JobError, Unavailable
from dreamforge.events import Failure
from dreamforge.jobs import JobState
from dreamforge.spec import Limits
from dreamforge_api import metrics
from dreamforge_api.execution.base import Executor, Liveness, Refused, TryLater, Unreachable
from dreamforge_api.worker import outcomes
from dreamforge_api.worker.ingest import finish
from dreamforge_api.worker.lost import STEP, Search
from dreamforge_api.worker.models import render_spec
from dreamforge_api.worker.policy import ControlPolicy
from dreamforge_api.worker.retry import Decision, RetryPolicy, Then

log = telemetry.logger("control")


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
        # A look alone needs no transaction, whose begin and end are two round trips more.
        self._reads = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._executor = executor
        self._announce = announce
        self._policy = policy
        self._search = Search(engine, executor, self._tell, policy=policy, retry=retry)
        self._limits = limits
        self.last_sweep = time.monotonic()

    def run(self, wait: Callable[[float], None], stopping: Callable[[], bool]) -> None:
        """Sweep until ``stopping``; ``wait(seconds)`` returns early when there is news: new jobs, cancels."""
        urgent = (self.dispatch, self.cancel, self.release)  # all else has its time: no new job waits behind it
        all_ = (*urgent, self.expire, self.expire_queued, self.find_lost)
        due = time.monotonic()
        while not stopping():
            if time.monotonic() < due:
                self._try(urgent)
            else:
                if self._try(all_):
                    self.last_sweep = time.monotonic()
                due = time.monotonic() + self._policy.sweep_seconds
            wait(max(0.0, due - time.monotonic()))

    def _try(self, duties: Sequence[Callable[[], int]]) -> bool:
        """Do them one after the other; whether there was a database to do them with."""
        for duty in duties:
            try:
                duty()
            except (Unavailable, DBAPIError) as error:
                log.warning("a dependency is away; the next sweep tries again", duty=duty.__name__, error=str(error))
                if isinstance(error, DBAPIError):
                    return False
        return True

    def dispatch(self) -> int:
        """Hand waiting jobs to the executor, oldest first; how many. One that is put off waits behind the others.

        ``TryLater`` leaves what was taken taken.
        """
        done, refusals = 0, list[TryLater]()
        with self._engine.begin() as connection:
            bounds = {"limit": self._policy.batch, "window": self._policy.window}
            for row in connection.execute(dispatch.TAKE_UNDISPATCHED, bounds).all():
                with telemetry.bound(job_id=row.id, step=STEP, correlation_id=row.correlation_id):
                    try:
                        self._dispatch_one(connection, row)
                    except TryLater as error:
                        log.info("put off", executor=self._executor.kind, error=str(error))
                        connection.execute(dispatch.DEFER, {"job_id": row.id, "kind": self._executor.kind})
                        refusals.append(error)
                        if isinstance(error, Unreachable) or len(refusals) == self._policy.refusals:
                            break
                        continue
                done += 1
                refusals.clear()
        if refusals:
            raise refusals[-1]
        return done

    def _dispatch_one(self, connection: Connection, row: Row[Any]) -> None:
        try:
            spec = render_spec(row, self._limits)
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
        with self._reads.connect() as connection:
            asked = connection.execute(dispatch.CANCELS).all()
        for row in asked:
            if not self._stops_by_itself(row):
                self._end(row.id, JobState.CANCELED)
        return len(asked)

    def release(self) -> int:
        """Have the executor stop and drop what it keeps for ended jobs; how many were looked at."""
        bounds = {"limit": self._policy.batch, "pause": self._policy.release_seconds}
        with self._reads.connect() as connection:
            ended = connection.execute(dispatch.UNRELEASED, bounds).all()
        for row in ended:
            over = self._let_go(row)
            with self._engine.begin() as connection:
                connection.execute(dispatch.MARK_RELEASED if over else dispatch.SEEN, {"job_id": row.id})
        return len(ended)

    def _let_go(self, row: Row[Any]) -> bool:
        """Whether the executor keeps nothing for the job any more; one it can't tell of waits behind the others."""
        late = row.error_code == ErrorCode.JOB_TIMEOUT or row.ended_seconds > self._policy.ending_seconds
        try:
            if row.status == JobState.CANCELED or (row.status == JobState.FAILED and late):
                self._executor.cancel(row.id, row.ref)
                reach(CrashPoint.CONTROL_CANCEL_TOLD)
            return self._executor.release(row.id, row.ref)
        except Unreachable:
            raise
        except TryLater as error:
            log.info("not released yet", job_id=str(row.id), error=str(error))
            return False

    def _stops_by_itself(self, row: Row[Any]) -> bool:
        """Tell the executor. Whether a runner is on it that will say goodbye; a job between two attempts has none."""
        # A job past its bound is ended without asking anybody; `release` tells the executor as often as it takes.
        if not row.dispatched or row.asked_seconds > self._policy.cancel_seconds:
            return False
        try:
            self._executor.cancel(row.id, row.ref)
            alive = self._executor.liveness(row.id, row.ref) is Liveness.ALIVE
        except Unreachable:
            raise
        except TryLater as error:  # the other cancels don't wait for this one, and it has its bound
            log.info("not canceled yet", job_id=str(row.id), error=str(error))
            return True
        # Right after a runner let go of its lease its last events may still be on their way.
        return alive or row.asked_seconds < self._policy.cancel_seconds / 2

    def expire(self) -> int:
        """End jobs whose deadline passed; how many."""
        with self._reads.connect() as connection:
            overdue = connection.execute(dispatch.OVERDUE, {"limit": self._policy.batch}).all()
        failure = Failure(code=ErrorCode.JOB_TIMEOUT, message="the job's deadline passed before it was done")
        answers = True
        for row in overdue:
            if self._end(row.id, JobState.FAILED, failure):
                metrics.DEADLINES.labels("job").inc()
                answers = answers and self._stop(row)
        return len(overdue)

    def expire_queued(self) -> int:
        """End jobs that no runner took in time; how many were looked at."""
        seconds = self._policy.queue_seconds
        if not seconds:
            return 0
        bounds = {"seconds": seconds, "limit": self._policy.batch}
        with self._reads.connect() as connection:
            stale = connection.execute(dispatch.QUEUED_TOO_LONG, bounds).all()
        message = f"the job waited longer than {seconds:g} s for a runner (DF_QUEUE_TIMEOUT_SECONDS)"
        failure = Failure(code=ErrorCode.JOB_TIMEOUT, message=message)
        answers = True
        for row in stale:
            # Ended first: a job that has just started must not meet a cancel nobody asked for.
            if self._end(row.id, JobState.FAILED, failure, sources=frozenset({JobState.QUEUED})):
                metrics.DEADLINES.labels("queue").inc()
                answers = answers and self._stop(row)
        return len(stale)

    def _stop(self, row: Row[Any]) -> bool:
        """Tell the executor of a job that ran out of time and is over, whether it hears of it or not: the events of a
        runner that was not told are refused, which stops it. False: nobody answers, so nobody need be told more."""
        if self._executor.retries_itself:
            return True  # `release` stops it, as often as it takes
        try:
            self._executor.cancel(row.id, row.ref)
        except TryLater as error:
            log.info("not told of the job's end", job_id=str(row.id), error=str(error))
            return not isinstance(error, Unreachable)
        return True

    def find_lost(self) -> int:
        """Look into dispatched jobs that fell silent; how many were lost."""
        return self._search.find()

    def _fail(self, connection: Connection, job_id: UUID, failure: Failure) -> None:
        metrics.ERRORS.labels(failure.code).inc()
        connection.execute(dispatch.OFFERED, {"job_id": job_id, "kind": self._executor.kind})
        decision = Decision(Then.FAIL, failure)
        seq = finish(connection, job_id, JobState.FAILED, STEP, decision)
        outcomes.note(job_id, decision, again="", by="control", seconds=outcomes.age(connection, job_id))
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
            decision = Decision(Then.CANCEL) if failure is None else Decision(Then.FAIL, failure)
            connection.execute(dispatch.OFFERED, {"job_id": job_id, "kind": self._executor.kind})
            seq = finish(connection, job_id, target, STEP, decision, sources=sources)
            seconds = outcomes.age(connection, job_id)
        if seq is not None:
            outcomes.note(job_id, decision, again="", by="control", seconds=seconds)
            if failure is not None:
                metrics.ERRORS.labels(failure.code).inc()
        self._tell(job_id, seq)
        return seq is not None

    def _tell(self, job_id: UUID, seq: int | None) -> None:
        if seq is not None:
            self._announce(job_id, seq)
