"""States of a job, a step, an item and an attempt, and the moves between them that are legal."""

from enum import StrEnum


class JobState(StrEnum):
    """Where a job is. Steps share the same states and moves."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def terminal(self) -> bool:
        """True when nothing may follow."""
        return not _MOVES[self]

    def may_become(self, target: "JobState") -> bool:
        """Whether a job in this state may move to ``target``; a state never becomes itself."""
        return target in _MOVES[self]


_MOVES: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.FAILED, JobState.CANCELED}),
    JobState.RUNNING: frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELED: frozenset(),
}

TERMINAL_STATES = frozenset(state for state in JobState if state.terminal)


def sources_of(target: JobState) -> frozenset[JobState]:
    """The states a job may be in for a move to ``target`` to be legal: the guard of every UPDATE."""
    return frozenset(state for state in JobState if state.may_become(target))


class ItemState(StrEnum):
    """Where one image of a batch is. An item a retry renders again goes back to running."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


class AttemptState(StrEnum):
    """How one try at a shard went. ``STOPPED`` does not count towards the retry limit."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    LOST = "lost"


class StepName(StrEnum):
    """The steps a job can have."""

    GENERATE = "generate"
