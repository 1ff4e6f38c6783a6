"""Of two that claim a job the first has it, and the other is told whichever of them is seen first."""

from datetime import timedelta
from uuid import uuid4

from dreamforge.renderjob.resource import RenderJob
from dreamforge_operator.reconcile import read
from dreamforge_operator.twins import Twins
from tests.unit.operator.kit import START, renderjob, stamp

JOB_ID = str(uuid4())


def claimant(name: str, uid: str, seconds: int = 0) -> RenderJob:
    made = stamp(START + timedelta(seconds=seconds))
    return read(renderjob({"jobId": JOB_ID}, name=name, uid=uid, creationTimestamp=made))[0]


def test_the_older_one_has_it():
    twins = Twins()
    older, younger = claimant("castle", "b"), claimant("tower", "a", 1)
    for rj in (older, younger, older):
        claim = twins.claim(rj)
        assert claim is not None
        assert claim.name == "castle"


def test_one_that_had_it_until_an_older_one_was_seen_is_looked_at_again():
    lost: list[str] = []
    twins = Twins(lost.append)
    for rj in (claimant("tower", "b"), claimant("castle", "a"), claimant("tower", "b")):
        claim = twins.claim(rj)
    assert claim is not None
    assert claim.name == "castle"
    assert lost == ["tower"]
