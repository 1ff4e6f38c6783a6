"""The executor port: four verbs, held by one contract suite that every executor must pass.

Nothing here tells of progress or results. Those come as events only, the same way whatever executes.
"""

from enum import StrEnum
from typing import Protocol
from uuid import UUID

from dreamforge.errors import DreamForgeError, Unavailable
from dreamforge.spec import RenderSpec


class Liveness(StrEnum):
    """What an executor knows of a job.

    ``ABSENT``: never heard of it, or forgotten. ``WAITING``: accepted, no runner has it yet. ``ALIVE``: a runner
    works on it. ``GONE``: a runner had it and is no more.
    """

    ABSENT = "absent"
    WAITING = "waiting"
    ALIVE = "alive"
    GONE = "gone"


class TryLater(Unavailable):
    """The executor can't take this job now or has no room; the same call may work later."""


class Unreachable(TryLater):
    """Nobody answers: no job's fault, and of no use to ask for another one."""


class Refused(DreamForgeError):
    """The executor will never accept this job; the text says why."""


class Executor(Protocol):
    """Where jobs run. Safe to call from several processes; every call may be repeated.

    ``ref`` is the name that ``submit`` gave, or under which the job came to the executor by itself; ``None`` when
    ``submit`` refused, its answer was lost, or nobody knows whether it was called at all.
    """

    kind: str
    #: Whether attempts are started again by whoever runs the job. Such a job is submitted once: when it is ``GONE``,
    #: it is over, and when it is ``ABSENT``, somebody took it away.
    retries_itself: bool

    def submit(self, spec: RenderSpec) -> str:
        """Make sure the job is waiting or running, and say under which name the executor knows it.

        Submitting twice is submitting once. Submitting a job that is ``GONE`` starts it anew, unless
        ``retries_itself``. Raises ``TryLater`` or ``Refused``.
        """
        ...

    def cancel(self, job_id: UUID, ref: str | None) -> None:
        """Ask that the job stops soon; harmless for a job that is unknown or over. Raises ``TryLater``."""
        ...

    def liveness(self, job_id: UUID, ref: str | None) -> Liveness:
        """What is known now. Raises ``TryLater``, which says nothing about the job."""
        ...

    def release(self, job_id: UUID, ref: str | None) -> bool:
        """The job has ended: drop what was kept for it, unless a runner may still need it. False: ask again later.

        Raises ``TryLater``.
        """
        ...
