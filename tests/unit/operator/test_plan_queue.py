"""Plans for jobs in a queue of Kueue, whose words are conditions of its Workload."""

import pytest

from dreamforge_operator import plan
from tests.unit.operator.kit import World, ended, running, verdict


def test_a_queued_job_is_made_suspended_and_never_unsuspended_by_us():
    world = World({"queue": {"name": "gpu"}})
    world.settle()
    assert world.child["spec"]["suspend"] is True
    assert world.child["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpu"
    assert (world.phase, world.condition("Admitted")["reason"]) == ("Queued", "NotYetSeen")
    world.later(11)
    world.settle()
    assert (world.phase, world.condition("Admitted")["reason"]) == ("Queued", "NoWorkload")
    world.child["spec"]["suspend"] = False  # Kueue admits it
    world.settle()
    world.make_pod(**running())
    world.settle()
    assert world.phase == "Rendering"
    world.child["spec"]["suspend"] = True  # and preempts it
    world.pods.clear()
    world.settle()
    assert world.phase == "Queued"
    assert "PatchJob" not in world.writes


@pytest.mark.parametrize(
    ("active", "told", "reason", "message"),
    [
        (True, {}, "WaitingForQuota", "The job waits for quota"),
        (True, {"QuotaReserved": ("False", "Pending", "no room")}, "WaitingForQuota", "no room"),
        (True, {"QuotaReserved": ("False", "Inadmissible", "no such queue")}, "Inadmissible", "no such queue"),
        (True, {"QuotaReserved": ("True", "QuotaReserved", "")}, "WaitingForQuota", "The job waits for quota"),
        (True, {"Admitted": ("True", "Admitted", "")}, "QuotaReserved", "admitted"),
        (True, {"Evicted": ("True", "Preempted", "by another")}, "Preempted", "by another"),
        (True, {"Evicted": ("True", "PodsReadyTimeout", "too slow")}, "Evicted", "too slow"),
        (False, {"Evicted": ("True", "Deactivated", "")}, "Evicted", "not active"),
    ],
)
def test_what_kueue_says_is_told(active: bool, told: dict[str, tuple[str, str, str]], reason: str, message: str):
    world = World({"queue": {"name": "gpu"}})
    world.settle()
    conditions = [{"type": kind, "status": one[0], "reason": one[1], "message": one[2]} for kind, one in told.items()]
    world.workload = {"metadata": {"name": "w"}, "spec": {"active": active}, "status": {"conditions": conditions}}
    world.settle()
    condition = world.condition("Admitted")
    assert (world.phase, condition["reason"]) == ("Queued", reason)
    assert message in condition["message"]


def test_in_a_queue_suspend_is_kueues_to_do():
    world = World({"queue": {"name": "gpu"}})
    world.settle()
    world.workload = {"metadata": {"name": "w"}, "spec": {}}
    for suspend in (True, False):
        world.edit(suspend=suspend)
        first, second = world.planned().actions
        if suspend:  # told first: a resume that comes right after it must know that it was
            assert isinstance(first, plan.WriteStatus)
        assert plan.SetWorkloadActive("w", not suspend) == (second if suspend else first)
        world.workload["spec"]["active"] = not suspend
        world.settle()
    assert "PatchJob" not in world.writes


def test_a_workload_that_somebody_else_made_inactive_stays_so():
    world = World({"queue": {"name": "gpu"}})
    world.settle()
    world.workload = {"metadata": {"name": "w"}, "spec": {"active": False}}
    world.settle()
    assert (world.phase, world.condition("Admitted")["reason"]) == ("Queued", "Evicted")
    assert world.planned().actions == ()


def test_a_wait_in_the_queue_that_was_too_long_names_its_reason():
    world = World({"queue": {"name": "gpu"}, "limits": {"startDeadlineSeconds": 60}})
    world.settle()
    told = {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": "insufficient quota"}
    world.workload = {"metadata": {"name": "w"}, "spec": {}, "status": {"conditions": [told]}}
    world.later(61)
    world.settle()
    assert (world.phase, world.condition("Failed")["reason"]) == ("Failed", "StartDeadlineExceeded")
    assert "insufficient quota" in world.condition("Failed")["message"]


def test_what_was_admitted_and_has_ended_was_admitted():
    world = World({"queue": {"name": "gpu"}})
    world.settle()
    world.child["spec"]["suspend"] = False
    world.make_pod(**ended(0, verdict()))
    world.end_job()
    world.settle()
    assert (world.phase, world.condition("Admitted")["reason"]) == ("Succeeded", "QuotaReserved")


def test_the_priority_in_the_queue_follows():
    world = World({"queue": {"name": "gpu", "priorityClassName": "low"}})
    world.settle()
    world.edit(queue={"name": "gpu", "priorityClassName": "high"})
    world.settle()
    assert world.child["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] == "high"
