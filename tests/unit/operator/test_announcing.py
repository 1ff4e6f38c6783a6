"""What ingest is told of a RenderJob, and that it is told until it answers."""

import asyncio
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest

from dreamforge.announcements import Announcement, Answer, JobEnded, JobRegistered, JobWaiting, Reception
from dreamforge.renderjob.resource import RenderJob
from dreamforge.transport.base import TransportUnavailable
from dreamforge_operator import announcer, announcing
from dreamforge_operator.announcer import Announcer
from tests.unit.operator.kit import START, World, renderjob

LATER = START + timedelta(minutes=1)
JOB_ID = "01a1fe29-dd98-7ebc-927d-71a4f6504565"


def wanted(world: World) -> list[str]:
    return [item.type for item in announcing.wanted(RenderJob.model_validate(world.rj), LATER)]


def ended(kind: str = "Complete", **words: Any) -> World:
    world = World()
    world.settle()
    world.make_pod()
    world.end_pods(0 if kind == "Complete" else 13, **words)
    world.end_job(kind)
    world.settle()
    return world


def test_a_persons_job_is_registered_with_all_ingest_needs():
    body = renderjob({"batch": {"count": 2, "shards": 1}}, labels={"team": "art", "app.kubernetes.io/name": "x"})
    (told,) = announcing.wanted(RenderJob.model_validate(body), LATER)
    assert isinstance(told, JobRegistered)
    assert (told.params or {})["prompt"] == "a castle"
    assert (told.params or {})["count"] == 2
    assert (told.created_at, told.deadline_at) == (START, START + timedelta(days=2))
    assert (told.labels, told.ref, told.model_id) == ({"team": "art"}, "runners/castle", "sketch")


def test_a_job_without_a_model_is_registered_with_the_one_this_platform_takes():
    body = renderjob()
    body["spec"].pop("modelRef", None)
    (told,) = announcing.wanted(RenderJob.model_validate(body), LATER, "sdxl-x@1.0")
    assert isinstance(told, JobRegistered)
    assert told.model_id == "sdxl-x@1.0"
    body["spec"]["modelRef"] = {"id": "mine"}
    (told,) = announcing.wanted(RenderJob.model_validate(body), LATER, "sdxl-x@1.0")
    assert isinstance(told, JobRegistered)
    assert told.model_id == "mine"


def test_the_apis_own_job_is_not_registered_again():
    secret = {"input": None, "inputSecretRef": {"name": "rj-1", "key": "render-spec.json"}}
    assert wanted(World({"jobId": JOB_ID, **secret})) == []
    assert wanted(World(secret)) == ["job.registered"]
    assert wanted(World({"jobId": JOB_ID})) == ["job.registered"], "a person may choose the id"


def test_ends_are_told_with_their_class():
    assert wanted(ended()) == ["job.registered", "job.ended"]
    world = ended("Failed", **{"class": "gpu_oom"})
    told = announcing.wanted(RenderJob.model_validate(world.rj), LATER)[-1]
    assert isinstance(told, JobEnded)
    assert told.failure is not None
    assert (told.outcome, told.failure.code) == ("failed", "gpu_oom")


def test_a_cancel_is_told():
    world = World()
    world.settle()
    world.make_pod()
    world.run_pods()
    world.edit(cancel=True)
    world.settle()
    assert wanted(world) == ["job.registered", "job.cancel_requested"]


def test_a_wait_is_told_for_people():
    world = World()
    world.settle()
    world.make_pod(conditions=[{"type": "PodScheduled", "status": "False", "message": "Insufficient nvidia.com/gpu"}])
    world.later(11)
    world.settle()
    told = announcing.wanted(RenderJob.model_validate(world.rj), LATER)[-1]
    assert isinstance(told, JobWaiting)
    assert told.reason == "NoGPU"


def test_what_ended_long_ago_is_no_news():
    body = RenderJob.model_validate(ended().rj)
    assert announcing.wanted(body, START + timedelta(days=8)) == []


class Ingest:
    """The other end: a transport whose answers the test decides."""

    def __init__(self) -> None:
        self.heard: list[Announcement] = []
        self.given: dict[str, Reception] = {}
        self.down = False

    def announce(self, announcement: Announcement) -> None:
        if self.down:
            raise TransportUnavailable("down")
        self.heard.append(announcement)

    def answers(self, asked: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Answer]:
        if self.down:
            raise TransportUnavailable("down")
        heard = {item.type for item in self.heard}
        return {
            (uid, type_): Answer(uid=uid, type=type_, reception=self.given[type_])
            for uid, type_ in asked
            if type_ in self.given and type_ in heard
        }


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_TICK_SECONDS", "_REST_SECONDS", "_AGAIN_SECONDS"):
        monkeypatch.setattr(announcer, name, 0.01)


async def until(look: Any) -> None:
    async with asyncio.timeout(10):
        while not look():  # noqa: ASYNC110 - the announcer has no event for it
            await asyncio.sleep(0.01)


def test_it_repeats_until_it_is_answered_also_after_an_outage(quick: None):
    async def story() -> None:
        ingest = Ingest()
        refused: list[str] = []
        teller = Announcer(ingest, refused.append)
        task = asyncio.create_task(teller.run())
        ingest.down = True
        teller.tell(RenderJob.model_validate(World().rj))
        await asyncio.sleep(0.05)
        assert (ingest.heard, len(teller)) == ([], 1)
        ingest.down = False
        await until(lambda: len(ingest.heard) >= 3)
        ingest.given["job.registered"] = Reception.RECORDED
        await until(lambda: len(teller) == 0)
        said = len(ingest.heard)
        teller.tell(RenderJob.model_validate(renderjob(resourceVersion="2")))
        await asyncio.sleep(0.05)
        assert (len(ingest.heard), refused) == (said, [])
        task.cancel()

    asyncio.run(story())


def test_a_refusal_reaches_the_renderjob(quick: None):
    async def story() -> None:
        ingest = Ingest()
        refused: list[str] = []
        ingest.given["job.registered"] = Reception.UNKNOWN_MODEL
        teller = Announcer(ingest, refused.append)
        task = asyncio.create_task(teller.run())
        rj = RenderJob.model_validate(World().rj)
        teller.tell(rj)
        await until(lambda: refused == ["castle"])
        found = teller.refusal(rj.metadata.uid)
        assert found is not None
        assert (found.reason, found.code) == ("UnknownModel", "model_missing")
        task.cancel()

    asyncio.run(story())


def test_a_deletion_that_nobody_saw_is_told(quick: None):
    async def story() -> None:
        ingest = Ingest()
        teller = Announcer(ingest, lambda name: None)
        task = asyncio.create_task(teller.run())
        teller.tell(RenderJob.model_validate(World().rj))
        known = teller.known()
        young = RenderJob.model_validate(World(name="young", uid="3d0e8400-e29b-41d4-a716-446655440000").rj)
        teller.tell(young)
        teller.forget(known)
        await until(lambda: any(item.type == "job.deleted" for item in ingest.heard))
        assert young.metadata.uid in teller.known(), "what was made meanwhile lives"
        assert not any(item.type == "job.deleted" and item.uid == young.metadata.uid for item in ingest.heard)
        task.cancel()

    asyncio.run(story())
