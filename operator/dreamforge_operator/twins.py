"""RenderJobs that claim the same job: the older one has it, whoever of them is looked at first.

Rebuilt from every full pass. Between two passes a look adds what it sees, so the second of two objects is known to
the first; if both were looked at before either was known, the younger one's child is ended a moment later.
"""

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from dreamforge.renderjob.resource import RenderJob
from dreamforge_operator.observed import EPOCH


class Claim(NamedTuple):
    """Who wants a job id; the smallest has it."""

    created: datetime
    uid: str
    name: str

    @classmethod
    def of(cls, rj: RenderJob) -> "Claim":
        return cls(rj.metadata.creation_timestamp or EPOCH, rj.metadata.uid, rj.metadata.name)


class Twins:
    """Claims by job id. Ids drawn from an object's own uid can't clash and are left out."""

    def __init__(self, on_lost: Callable[[str], None] = lambda _: None) -> None:
        """``on_lost`` hears the name of each RenderJob whose claim turns out not to be the first."""
        self._on_lost = on_lost
        self._claims: dict[UUID, Claim] = {}

    def claim(self, rj: RenderJob) -> Claim | None:
        """The first claim of its job id."""
        if rj.spec.job_id is None:
            return None
        return self.note(rj.spec.job_id, Claim.of(rj))

    def note(self, job_id: UUID, own: Claim) -> Claim:
        """The first of this claim and those known."""
        known = self._claims.get(job_id, own)
        first = min(own, known)
        self._claims[job_id] = first
        if first.uid != known.uid:  # two of one second, seen in the order that does not count
            self._on_lost(known.name)
        return first

    def forget(self, job_id: UUID, uid: str) -> None:
        """The object that had the job id is gone."""
        claim = self._claims.get(job_id)
        if claim is not None and claim.uid == uid:
            del self._claims[job_id]

    def replace(self, other: "Twins") -> None:
        """Forget those that are gone."""
        self._claims = other._claims
