"""Dispatched jobs that nobody has heard of for a while: waiting, at work, over, or lost."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, Row

from dreamforge import telemetry
from dreamforge.db import dispatch, ingest
from dreamforge.errors import ErrorCode
from dreamforge.events import Failure, Level
from dreamforge.jobs import JobState, StepName
from dreamforge_api import metrics
from dreamforge_api.execution.base import Executor, Liveness, TryLater, Unreachable
from dreamforge_api.worker import outcomes
from dreamforge_api.worker.ingest import finish
from dreamforge_api.worker.policy import ControlPolicy
from dreamforge_api.worker.retry import Decision, RetryPolicy, Standing, Then, after_failure

log = telemetry.logger("control")
STEP = StepName.GENERATE.value


class Search:
    """One duty of the control loop. ``tell(job_id, seq)`` hears of each job that has news."""

    def __init__(
        self,
        engine: Engine,
        executor: Executor,
        tell: Callable[[UUID, int | None], None],
        *,
        policy: ControlPolicy,
        retry: RetryPolicy,
    ) -> None:
        self._engine = engine
        # A look alone needs no transaction, whose begin and end are two round trips more.
        self._reads = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._executor = executor
        self._tell = tell
        self._policy = policy
        self._retry = retry

    def find(self) -> int:
        """Look into them; how many were lost."""
        bounds = {"silence": self._policy.silence_seconds, "limit": self._policy.batch}
        with self._reads.connect() as connection:
            silent = connection.execute(dispatch.SILENT, bounds).all()
        lost = 0
        for row in silent:
            known = self._liveness(row)
            if known in (None, Liveness.ALIVE, Liveness.WAITING):
                with self._engine.begin() as connection:
                    connection.execute(dispatch.SEEN, {"job_id": row.id})
            elif self._executor.retries_itself:
                lost += self._conclude(row.id, known)
            else:
                lost += self._recover(row.id)
        return lost

    def _liveness(self, row: Row[Any]) -> Liveness | None:
        """None when the executor can't tell of this job; it is asked again when the job was silent once more."""
        try:
            return self._executor.liveness(row.id, row.ref)
        except Unreachable:
            raise
        except TryLater as error:
            log.info("nothing is known of a silent job", job_id=str(row.id), error=str(error))
            return None

    def _conclude(self, job_id: UUID, known: Liveness) -> bool:
        """A cluster's job is over there and nobody said how: somebody took it away, or every word of it was lost."""
        gone = known is Liveness.GONE
        silence = self._policy.forsaken_seconds if gone else self._policy.silence_seconds
        with self._engine.begin() as connection:
            row = connection.execute(dispatch.LOCK_SILENT, {"job_id": job_id, "silence": silence}).one_or_none()
            if row is None:
                return False
            if gone and not row.cancel_requested:
                failure = Failure(code=ErrorCode.RUNNER_LOST, message="the cluster ended the job and did not say how")
                decision = Decision(Then.FAIL, failure)
                seq = finish(connection, job_id, JobState.FAILED, STEP, decision)
            else:
                decision = Decision(Then.CANCEL)
                seq = finish(connection, job_id, JobState.CANCELED, STEP)
            seconds = outcomes.age(connection, job_id)
        log.warning("a cluster's job ended unseen", job_id=str(job_id), then=decision.then)
        outcomes.note(job_id, decision, again="", by="control", seconds=seconds)
        self._tell(job_id, seq)
        return True

    def _recover(self, job_id: UUID) -> bool:
        """The executor knows nothing of a dispatched job: start it again, or fail it after too many tries."""
        with self._engine.begin() as connection:
            bounds = {"job_id": job_id, "silence": self._policy.silence_seconds}
            row = connection.execute(dispatch.LOCK_SILENT, bounds).one_or_none()
            if row is None:
                return False
            # No attempt was open: the message was lost, or sent while a runner that had stopped was still leaving.
            runner_lost = connection.execute(dispatch.LOSE_ATTEMPTS, {"job_id": job_id}).rowcount > 0
            decision = self._decide(row, runner_lost=runner_lost)
            seq = self._follow(connection, job_id, decision)
            seconds = outcomes.age(connection, job_id)
        what = "lost_runner" if runner_lost else "lost_message"
        log.warning("a silent job has no runner", job_id=str(job_id), cause=what, then=decision.then)
        if runner_lost:
            metrics.RUNNERS_LOST.inc()
        outcomes.note(job_id, decision, again=what, by="control", seconds=seconds)
        self._tell(job_id, seq)
        return True

    def _decide(self, row: Row[Any], *, runner_lost: bool) -> Decision:
        """A lost message is nobody's failure, so it doesn't count."""
        if not runner_lost:
            return Decision(Then.CANCEL if row.cancel_requested else Then.AGAIN)
        failure = Failure(code=ErrorCode.RUNNER_LOST, message="the runner vanished while it had the job")
        standing = Standing(row.failures, row.cancel_requested, row.completed, row.item_count)
        return after_failure(failure, standing, self._retry)

    def _follow(self, connection: Connection, job_id: UUID, decision: Decision) -> int | None:
        if decision.then is Then.AGAIN:
            parameters = {"job_id": job_id, "counted": decision.counted, "delay": decision.delay}
            connection.execute(ingest.DISPATCH_AGAIN, parameters)
            code, what = ("runner.lost", "runner") if decision.counted else ("message.lost", "message to a runner")
            note = {"job_id": job_id, "step": STEP, "level": Level.WARNING.value, "code": code}
            message = f"the {what} was lost; the job is handed out again"
            return connection.execute(dispatch.NOTE, {**note, "message": message}).scalar_one_or_none()
        if decision.then is Then.CANCEL:
            return finish(connection, job_id, JobState.CANCELED, STEP)
        if decision.failure is not None:
            metrics.ERRORS.labels(decision.failure.code).inc()
        return finish(connection, job_id, JobState.FAILED, STEP, decision)
