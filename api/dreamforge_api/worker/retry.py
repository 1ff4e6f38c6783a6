"""What follows an attempt's end: pure decisions, as data."""

import random
from dataclasses import dataclass
from enum import StrEnum

from dreamforge.errors import FACTS, POISONOUS, ErrorCode
from dreamforge.events import Failure, Outcome


@dataclass(frozen=True)
class RetryPolicy:
    """How often a job is tried, and how long to wait before attempt n + 1 (seconds, doubling, with jitter)."""

    max_attempts: int = 3
    #: The bound for classes that kill the runner: more tries would only kill more runners.
    max_runner_losses: int = 2
    first_delay: float = 2.0
    longest_delay: float = 60.0
    jitter: float = 0.2
    #: Before the attempt after a stop. The runner that leaves keeps its lease until it knows that its last word is
    #: safe; until then the job can't be handed to another.
    stop_delay: float = 1.0

    def tries(self, code: ErrorCode) -> int:
        """How many attempts a job gets when the latest ended with ``code``."""
        if not FACTS[code].retryable:
            return 1
        return min(self.max_attempts, self.max_runner_losses) if code in POISONOUS else self.max_attempts

    def delay(self, failures: int) -> float:
        """Seconds to wait after the ``failures``-th attempt that counts (1 and up)."""
        base = min(self.first_delay * 2.0 ** max(failures - 1, 0), self.longest_delay)
        return base * (1 + random.uniform(-self.jitter, self.jitter))  # noqa: S311 - spreads load, hides nothing


class Then(StrEnum):
    """What becomes of the job."""

    SUCCEED = "succeed"
    FAIL = "fail"
    CANCEL = "cancel"
    AGAIN = "again"
    #: Nothing follows yet: other runners still work on their shards.
    GO_ON = "go_on"


@dataclass(frozen=True)
class Decision:
    """The job's next move. ``counted`` tells whether the attempt uses up one of the tries."""

    then: Then
    failure: Failure | None = None
    delay: float = 0.0
    counted: bool = False


@dataclass(frozen=True)
class Standing:
    """What a decision needs to know of the job; ``completed`` of ``count`` items are those of the attempt's shard."""

    failures: int
    cancel_requested: bool
    completed: int
    count: int
    shards_left: int = 0
    #: Whoever runs the job starts the next attempt by itself and says when it gives up: a cluster.
    retried_by_cluster: bool = False


def after(outcome: Outcome, failure: Failure | None, job: Standing, policy: RetryPolicy) -> Decision:
    """Decide what follows an attempt that said how it ended.

    A success that was committed wins over a cancel that came late; a cancel wins over everything else. A stop
    (eviction, shutdown) is tried again soon and never counts.
    """
    if outcome is Outcome.SUCCEEDED:
        if job.completed == job.count:
            return Decision(Then.GO_ON if job.shards_left else Then.SUCCEED)
        failure = Failure(
            code=ErrorCode.INTERNAL,
            message=f"the runner reported success with {job.completed} of {job.count} items stored",
        )
    if job.cancel_requested:
        return Decision(Then.CANCEL)
    if outcome in (Outcome.STOPPED, Outcome.CANCELED):
        return Decision(Then.AGAIN, delay=0.0 if job.retried_by_cluster else policy.stop_delay)
    if failure is None:
        failure = Failure(code=ErrorCode.INTERNAL, message="the runner failed without saying why")
    return after_failure(failure, job, policy)


def after_failure(failure: Failure, job: Standing, policy: RetryPolicy) -> Decision:
    """Decide whether a failure is tried again."""
    if job.cancel_requested:
        return Decision(Then.CANCEL)
    failures = job.failures + 1
    if job.retried_by_cluster and FACTS[failure.code].retryable:
        return Decision(Then.AGAIN, failure, counted=True)
    if failures < policy.tries(failure.code):
        return Decision(Then.AGAIN, failure, policy.delay(failures), counted=True)
    return Decision(Then.FAIL, failure)
