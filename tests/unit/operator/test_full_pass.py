"""What a full pass finds, and what it need not read again."""

from datetime import timedelta
from typing import cast

from dreamforge.renderjob import names
from dreamforge.renderjob.resource import RenderJob
from dreamforge_operator import observed
from dreamforge_operator.cluster import Cluster
from dreamforge_operator.full_pass import Children, Findings, FullPass
from tests.unit.operator.kit import PLATFORM, START, UID, World


class Pass:
    """A pass over one world; its lists are the test's, so no cluster is asked."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.told: list[RenderJob] = []
        self._pass = FullPass(cast(Cluster, None), PLATFORM, self.told.append)

    def look(self) -> Findings:
        world, found = self.world, Findings()
        jobs = {UID: observed.job_of(world.job)} if world.job else {}
        pods = {UID: [observed.pod_of(item) for item in world.pods]}
        workloads = {"job-1": observed.workload_of(world.workload)} if world.workload else {}
        self._pass.look_at(world.rj, Children(jobs, pods, workloads=workloads), world.now, found)
        return found

    def reads(self) -> bool:
        """Whether one more pass reads the RenderJob in full."""
        before = len(self.told)
        self.look()
        return len(self.told) > before

    def wrote(self, item: dict[str, dict[str, str]]) -> None:
        version = int(item["metadata"].get("resourceVersion", "0"))
        item["metadata"]["resourceVersion"] = str(version + 1)


def settled(**spec: object) -> Pass:
    world = World(spec)
    world.settle()
    return Pass(world)


def test_what_needs_a_look_is_found_by_every_pass():
    one = Pass(World())
    assert [one.look().look_at, one.look().look_at] == [["castle"], ["castle"]]


def test_what_is_as_it_was_is_counted_and_not_read_again():
    one = settled(suspend=True)
    assert one.reads()
    assert not one.reads()
    found = one.look()
    assert (found.uids, found.names, found.look_at) == ({UID}, {"castle"}, [])
    assert found.phases == {"Suspended": 1}


def test_a_new_version_of_it_or_of_a_child_is_read():
    one = settled()
    one.world.make_pod()
    one.look()
    for item in (one.world.rj, one.world.child, one.world.pods[0]):
        one.wrote(item)
        assert one.reads()
        assert not one.reads()


def test_a_pod_that_appears_or_goes_is_read():
    one = settled()
    one.look()
    one.world.make_pod()
    one.wrote(one.world.pods[0])
    assert one.reads()
    one.world.pods.clear()
    assert one.reads()


def test_a_clock_that_changes_the_plan_is_seen_without_a_write():
    one = settled()
    one.look()
    one.world.later(11)
    assert one.look().waiting == ["castle"]
    one.world.later(3600 * 24 * 30)
    assert one.look().look_at == ["castle"]


def test_the_time_to_live_of_what_has_ended_is_kept():
    one = settled(ttlSecondsAfterFinished=60)
    one.world.make_pod()
    one.world.run_pods()
    one.world.end_pods(items_done=1)
    one.world.end_job()
    one.world.settle()
    assert one.look().look_at == []
    one.world.later(61)
    assert one.look().look_at == ["castle"]


def test_once_in_a_while_everything_is_read():
    one = settled(suspend=True)
    one.look()
    one.world.later(timedelta(minutes=5).total_seconds())
    assert one.reads()


def test_who_renders_is_known_without_reading():
    one = settled()
    one.world.make_pod()
    one.world.run_pods()
    one.world.settle()
    first, second = one.look(), one.look()
    assert len(one.told) == 1
    assert first.rendering == second.rendering == {str(names.job_id_of(UID, START))}


def test_a_job_in_a_queue_is_looked_at_when_kueue_says_something_else():
    one = settled(queue={"name": "gpu"})
    one.world.workload = {"metadata": {"name": "w", "resourceVersion": "1"}}
    assert one.look().look_at == ["castle"]
    one.world.settle()
    assert one.look().look_at == []
    assert not one.reads()
    refused = {"type": "QuotaReserved", "status": "False", "reason": "Inadmissible"}
    one.world.workload = {"metadata": {"name": "w", "resourceVersion": "2"}, "status": {"conditions": [refused]}}
    assert one.look().look_at == ["castle"]
