"""What is counted and said once a decision about a job is committed."""

from uuid import UUID

from sqlalchemy import Connection

from dreamforge import telemetry
from dreamforge.db import jobs
from dreamforge.errors import POISONOUS
from dreamforge.jobs import JobState
from dreamforge_api import metrics
from dreamforge_api.worker.retry import Decision, Then

log = telemetry.logger("outcomes")
#: Decisions that end the job, and as what.
_ENDS = {Then.SUCCEED: JobState.SUCCEEDED, Then.FAIL: JobState.FAILED, Then.CANCEL: JobState.CANCELED}


def age(connection: Connection, job_id: UUID) -> float:
    """Seconds from the job's creation to its end. To be asked in the transaction that ends it, for :func:`note`."""
    seconds = connection.execute(jobs.AGE, {"job_id": job_id}).scalar_one_or_none()
    return float(seconds or 0)


def note(job_id: UUID, decision: Decision, *, again: str, by: str | None, seconds: float | None) -> None:
    """Count ``decision``. ``again`` names why a job is handed out once more, ``by`` who ended a canceled one (None:
    whoever asked for it); ``seconds`` after its creation a job that ended did so (None: nobody knows)."""
    state = _ENDS.get(decision.then)
    if state is not None and seconds is not None:
        metrics.JOB_DURATION.labels(state.value).observe(max(seconds, 0.0))  # two clocks may differ
    if decision.then is Then.AGAIN:
        metrics.REDISPATCHES.labels(again).inc()
    elif decision.then is Then.CANCEL:
        if by is not None:
            metrics.CANCELS.labels(by).inc()
    elif decision.failure is not None and decision.failure.code in POISONOUS:
        metrics.DEAD_JOBS.labels(decision.failure.code).inc()
        log.error(
            "a job is a dead letter: it ended its runner too often; see `dreamforge dlq`",
            job_id=str(job_id),
            code=decision.failure.code.value,
        )
