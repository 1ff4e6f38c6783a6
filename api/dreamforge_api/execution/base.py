"""The executor port: three verbs, held by one contract suite that every executor must pass.

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
    """The executor can't be reached or has no room; the same call may work later."""


class Refused(DreamForgeError):
    """The executor will never accept this job; the text says why."""


class Executor(Protocol):
    """Where jobs run. Safe to call from several processes; every call may be repeated."""

    kind: str

    def submit(self, spec: RenderSpec) -> str:
        """Make sure the job is waiting or running, and say under which name the executor knows it.

        Submitting twice is submitting once. Submitting a job that is ``GONE`` starts it anew. Raises ``TryLater``
        or ``Refused``.
        """
        ...

    def cancel(self, job_id: UUID) -> None:
        """Ask that the job stops soon; harmless for a job that is unknown or over. Raises ``TryLater``."""
        ...

    def liveness(self, job_id: UUID) -> Liveness:
        """What is known now. Raises ``TryLater``, which says nothing about the job."""
        ...
