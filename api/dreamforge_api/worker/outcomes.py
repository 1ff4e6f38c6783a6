"""What is counted and said once a decision about a job is committed."""

from uuid import UUID

from dreamforge import telemetry
from dreamforge.errors import POISONOUS
from dreamforge_api import metrics
from dreamforge_api.worker.retry import Decision, Then

log = telemetry.logger("outcomes")


def note(job_id: UUID, decision: Decision, *, again: str, by: str) -> None:
    """Count ``decision``: ``again`` names why a job is handed out once more, ``by`` who ended a canceled one."""
    if decision.then is Then.AGAIN:
        metrics.REDISPATCHES.labels(again).inc()
    elif decision.then is Then.CANCEL:
        metrics.CANCELS.labels(by).inc()
    elif decision.failure is not None and decision.failure.code in POISONOUS:
        metrics.DEAD_JOBS.labels(decision.failure.code).inc()
        log.error(
            "a job is a dead letter: it ended its runner too often; see `dreamforge dlq`",
            job_id=str(job_id),
            code=decision.failure.code.value,
        )
