"""RenderJobs that claim the same job: the older one has it, whoever of them is looked at first.

Rebuilt from every full pass. Between two passes a look adds what it sees, so the second of two objects is known to
the first; if both were looked at before either was known, the younger one's child is ended a moment later.
"""

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


class Twins:
    """Claims by job id. Ids drawn from an object's own uid can't clash and are left out."""

    def __init__(self) -> None:
        self._claims: dict[UUID, Claim] = {}

    def claim(self, rj: RenderJob) -> Claim | None:
        """The first claim of its job id."""
        if rj.spec.job_id is None:
            return None
        own = Claim(rj.metadata.creation_timestamp or EPOCH, rj.metadata.uid, rj.metadata.name)
        first = min(own, self._claims.get(rj.spec.job_id, own))
        self._claims[rj.spec.job_id] = first
        return first

    def forget(self, job_id: UUID, uid: str) -> None:
        """The object that had the job id is gone."""
        claim = self._claims.get(job_id)
        if claim is not None and claim.uid == uid:
            del self._claims[job_id]

    def replace(self, other: "Twins") -> None:
        """Forget those that are gone."""
        self._claims = other._claims
