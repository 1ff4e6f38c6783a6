"""Plans over a model of a cluster's state: each story ends where it should, in as few writes as promised."""

from datetime import UTC, datetime
from typing import Any

import pytest

from dreamforge_operator import observed, plan
from tests.unit.operator.kit import DEFAULTS, START, Json, World, ended, pod, running, stamp, true, verdict


def rendering(spec: Json | None = None, **meta: Any) -> World:
    """A job whose runner works."""
    world = World(spec, **meta)
    world.settle()
    world.make_pod()
    world.later(2)
    world.run_pods()
    world.settle()
    assert world.phase == "Rendering"
    return world


def test_an_ordinary_job_costs_four_writes():
    world = World({"batch": {"count": 4, "shards": 1}})
    world.settle()
    assert world.phase == "Starting"
    assert world.status["jobRef"]["name"] == "castle-54b3afc8"
    world.make_pod()
    world.settle()
    world.pods[0]["status"] |= {"conditions": [true("PodScheduled")]}
    world.later(3)
    world.settle()
    world.run_pods()
    world.settle()
    assert world.phase == "Rendering"
    world.end_pods(items_done=4, vram_mib={"start": 10, "peak": 900.4, "end": 10}, clean=True)
    world.settle()
    world.end_job()
    world.settle()
    assert world.phase == "Succeeded"
    assert world.writes == ["CreateJob", "WriteStatus", "WriteStatus", "WriteStatus"]
    assert world.status["items"] == {"succeeded": "0-3", "failed": ""}
    assert world.status["progress"] == {"percent": 100, "itemsTotal": 4, "itemsDone": 4}
    assert world.status["gpu"] == {
        "count": 1,
        "vramStartMiB": 10,
        "vramPeakMiB": 900,
        "vramEndMiB": 10,
        "clean": True,
    }
    assert world.condition("Complete")["status"] == "True"
    assert world.condition("GPUClean")["reason"] == "Verified"
    assert world.status["attempt"] == 1


def test_a_runner_that_has_ended_in_a_pod_that_has_not_is_no_start():
    world = rendering()
    world.later(60)
    world.pods[0]["status"] = {**ended(0, at=world.now), "phase": "Running"}
    assert world.settle() == 0
    assert world.phase == "Rendering"


def test_a_container_that_could_not_be_started_is_no_start():
    """containerd tells 1970 of it, which the CRD refuses: no status could be written any more."""
    world = World()
    world.settle()
    world.make_pod(**ended(128, reason="StartError", at=datetime(1970, 1, 1, tzinfo=UTC)))
    world.settle()
    assert (world.status.get("startTime"), world.phase) == (None, "Starting")
    world.make_pod()
    world.run_pods()
    world.settle()
    assert world.status["startTime"] == stamp(world.now)


def test_nothing_is_done_twice():
    world = rendering()
    before = list(world.writes)
    world.later(5)
    assert world.settle() == 0
    assert world.writes == before


@pytest.mark.parametrize(
    ("phase", "ready", "reconciling", "stalled"),
    [
        ("Starting", "False", "True", "False"),
        ("Rendering", "False", "True", "False"),
        ("Suspended", "False", "False", "False"),
        ("Succeeded", "True", "False", "False"),
        ("Failed", "False", "False", "True"),
        ("Canceled", "True", "False", "False"),
    ],
)
def test_kstatus_reads_each_phase_right(phase: str, ready: str, reconciling: str, stalled: str):
    world = World({"suspend": True}) if phase == "Suspended" else World() if phase == "Starting" else rendering()
    match phase:
        case "Succeeded":
            world.end_pods()
            world.end_job()
        case "Failed":
            world.end_pods(13, **{"class": "gpu_oom"})
            world.end_job("Failed", "FailedIndexes")
        case "Canceled":
            world.edit(cancel=True)
            world.settle()
            world.drop_pods()
    world.settle()
    assert world.phase == phase
    told = [world.condition(kind)["status"] for kind in ("Ready", "Reconciling", "Stalled")]
    assert told == [ready, reconciling, stalled]
    assert world.status["observedGeneration"] == world.rj["metadata"]["generation"]


def test_a_failure_tells_its_class():
    world = rendering({"batch": {"count": 3, "shards": 1}})
    world.end_pods(13, **{"class": "gpu_oom"}, items_done=2, items_failed=1)
    world.end_job("Failed", "FailedIndexes")
    world.settle()
    told = {"class": "gpu_oom", "reason": "GpuOom", "exitCode": 13, "retryable": False}
    assert world.status["failure"] == {**told, "itemIndex": 2}
    assert world.condition("Failed")["reason"] == "GpuOom"
    assert world.status["items"] == {"succeeded": "0-1", "failed": "2"}
    assert world.status["artifacts"]["count"] == 2
    assert "Complete" not in {item["type"] for item in world.status["conditions"]}


def test_the_manifest_is_named_by_the_pod_that_wrote_it():
    world = World({"batch": {"count": 2, "shards": 2}})
    world.settle()
    world.make_pod(0, **ended(0, verdict(items_done=1, manifest_sha256="a" * 64)))
    world.later(1)
    world.make_pod(1, **ended(0, verdict(items_done=1), at=world.now))
    world.end_job()
    world.settle()
    assert world.status["artifacts"]["manifestSha256"] == "a" * 64


@pytest.mark.parametrize("told", [{}, {"manifest_sha256": "http://x"}])
def test_a_manifest_that_nobody_named_has_no_hash(told: Json):
    world = rendering()
    world.end_pods(**told)
    world.end_job()
    world.settle()
    assert world.phase == "Succeeded"
    assert "manifestSha256" not in world.status["artifacts"]


def test_a_failure_of_no_item_names_none():
    world = rendering({"batch": {"count": 3, "shards": 1}})
    world.end_pods(12, **{"class": "model_invalid"})
    world.end_job("Failed", "FailedIndexes")
    world.settle()
    assert "itemIndex" not in world.status["failure"]
    assert world.status["items"] == {"succeeded": "", "failed": ""}


def test_the_cluster_deadline_is_a_timeout():
    world = rendering()
    world.end_pods(30, **{"class": "stopped"})
    world.end_job("Failed", "DeadlineExceeded")
    world.settle()
    assert world.status["failure"]["class"] == "job_timeout"


def test_a_retried_attempt_is_counted_and_told():
    world = rendering()
    world.end_pods(20, **{"class": "storage_error"})
    world.settle()
    assert world.phase == "Rendering", "what the Job controller says in a moment is worth the write"
    world.later(11)
    world.settle()
    assert (world.phase, world.condition("PodReady")["reason"]) == ("Starting", "Retrying")
    world.make_pod()
    world.run_pods()
    world.settle()
    assert (world.phase, world.status["attempt"]) == ("Rendering", 2)


def test_a_pod_that_was_taken_away_left_its_number():
    world = rendering()
    world.pods.clear()
    world.make_pod(**running())
    world.pods[0]["metadata"]["annotations"][observed.INDEX_IGNORED_ANNOTATION] = "1"
    world.settle()
    assert (world.phase, world.status["attempt"]) == ("Rendering", 2)


def test_a_runner_after_a_suspension_is_an_attempt_although_its_pod_is_the_first():
    world = rendering()
    for number in (2, 3):
        world.later(60)
        world.edit(suspend=True)
        world.settle()
        assert (world.phase, world.status["attempt"]) == ("Suspended", number - 1)
        world.later(60)
        world.edit(suspend=False)
        world.settle()
        world.make_pod()
        world.settle()
        world.run_pods()
        world.settle()
        assert (world.phase, world.status["attempt"]) == ("Rendering", number)
    world.later(60)
    assert world.settle() == 0


def test_a_shard_that_starts_late_is_no_attempt_more():
    world = World({"batch": {"count": 2, "shards": 2}})
    world.settle()
    world.make_pod(0)
    world.make_pod(1)
    world.pods[0]["status"] = running(world.now)
    world.settle()
    world.later(60)
    world.pods[0]["status"] = ended(0, verdict(items_done=1), at=world.now)
    world.settle()
    assert world.condition("PodReady")["status"] == "False"
    world.run_pods()
    world.settle()
    assert (world.phase, world.status["attempt"]) == ("Rendering", 1)


def test_a_cancel_is_latched_before_the_child_goes():
    world = rendering()
    world.edit(cancel=True)
    first, second = world.planned().actions
    assert isinstance(first, plan.WriteStatus)
    assert isinstance(second, plan.DeleteJob)
    world.settle()
    assert world.phase == "Canceling"
    assert not world.has_child
    world.edit(cancel=False)  # as Flux takes it back
    world.settle()
    assert world.phase == "Canceling"
    assert world.jobs_made == 1
    world.drop_pods()
    world.settle()
    assert world.phase == "Canceled"
    assert world.condition("Canceled")["status"] == "True"


def test_a_cancel_before_the_child_makes_none():
    world = World({"cancel": True})
    world.settle()
    assert world.writes == ["WriteStatus"]
    assert world.phase == "Canceled"


def test_a_finished_child_beats_a_cancel():
    world = rendering()
    world.end_pods()
    world.end_job()
    world.edit(cancel=True)
    world.settle()
    assert world.phase == "Succeeded"


def test_born_suspended_gets_no_child_until_it_is_resumed():
    world = World({"suspend": True})
    world.settle()
    assert (world.phase, world.has_child) == ("Suspended", False)
    assert world.condition("Suspended")["reason"] == "SuspendRequested"
    world.edit(suspend=False)
    world.settle()
    assert world.phase == "Starting"
    assert world.condition("Suspended")["reason"] == "Resumed"
    assert world.jobs_made == 1


def test_suspend_and_resume_go_through_the_child():
    world = rendering()
    world.edit(suspend=True)
    world.settle()
    assert (world.child["spec"]["suspend"], world.phase) == (True, "Suspended")
    world.edit(suspend=False)
    world.settle()
    assert (world.child["spec"]["suspend"], world.phase) == (False, "Starting")
    assert world.status["startTime"] == stamp(START.replace(second=7))


def test_a_child_deleted_by_hand_is_made_again_once_its_pods_are_gone():
    world = rendering()
    world.act(plan.DeleteJob("castle-54b3afc8", world.child["metadata"]["uid"]))
    world.settle()
    assert not world.has_child, "its pod still holds the GPU"
    world.drop_pods()
    world.settle()
    assert world.jobs_made == 2


def test_a_foreign_job_of_our_name_is_never_touched():
    world = World()
    world.job = {"metadata": {"name": "castle-54b3afc8", "uid": "x", "ownerReferences": []}, "spec": {}, "status": {}}
    world.settle()
    assert world.writes == ["WriteStatus"]
    assert world.condition("Accepted")["reason"] == "NameCollision"
    assert (world.phase, world.condition("Reconciling")["status"]) == ("Pending", "True")
    world.job = None
    world.settle()
    assert (world.phase, world.jobs_made) == ("Starting", 1)


def test_no_pod_in_time_fails_the_job_and_ends_the_child():
    world = World({"limits": {"startDeadlineSeconds": 60}})
    world.settle()
    world.make_pod(
        conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}]
    )
    world.later(61)
    world.settle()
    assert world.condition("Failed")["reason"] == "StartDeadlineExceeded"
    assert "No node takes the pod" in world.condition("Failed")["message"]
    assert not world.has_child


def test_a_wait_is_told_once_it_lasts():
    world = World()
    world.settle()
    world.make_pod(phase="Pending")
    world.later(2)
    assert world.settle() == 0
    assert world.planned().again_in == pytest.approx(8.1)
    world.later(9)
    world.settle()
    assert world.condition("PodReady")["reason"] == "Scheduling"


@pytest.mark.parametrize(
    ("spec", "reason", "code"),
    [
        ({"modelRef": {"id": "nowhere"}}, "UnknownModel", "model_missing"),
        ({"provider": "nobody"}, "UnknownProvider", "dispatch_refused"),
        ({"runtimeRef": {"name": "nothing"}}, "UnknownRuntime", "dispatch_refused"),
        ({"input": {"prompt": " \u00a0 "}}, "InvalidInput", "invalid_input"),
        ({"input": {"prompt": "x", "width": 257}}, "InvalidInput", "invalid_input"),
    ],
)
def test_what_can_never_run_fails_with_its_reason(spec: Json, reason: str, code: str):
    world = World(spec)
    world.settle()
    assert world.writes == ["WriteStatus"]
    assert world.condition("Accepted")["reason"] == reason
    assert world.status["failure"]["class"] == code
    assert world.phase == "Failed"
    assert world.settle() == 0


@pytest.mark.parametrize(("after", "left"), [(3599, True), (3601, False)])
def test_children_go_when_their_time_is_up_and_the_renderjob_stays(after: int, left: bool):
    world = rendering()
    world.end_pods()
    world.end_job()
    world.settle()
    world.later(after)
    world.settle()
    assert (world.has_child, world.body is not None) == (left, True)
    assert world.phase == "Succeeded"


@pytest.mark.parametrize(
    ("meta", "gone"),
    [
        ({}, True),
        ({"labels": {"kustomize.toolkit.fluxcd.io/name": "jobs"}}, False),
        ({"annotations": {"argocd.argoproj.io/tracking-id": "x"}}, False),
    ],
)
def test_delete_self_is_not_followed_on_what_git_makes_again(meta: Json, gone: bool):
    world = rendering({"deletionPolicy": "DeleteSelf", "ttlSecondsAfterFinished": 5}, **meta)
    assert world.condition("Accepted")["reason"] == ("Valid" if gone else "DeletionPolicyIgnored")
    assert world.condition("Accepted")["status"] == "True"
    world.end_pods()
    world.end_job()
    world.settle()
    world.later(6)
    world.settle()
    world.settle()
    assert (world.body is None) is gone


def test_an_edit_after_the_end_changes_nothing_but_the_generation():
    world = rendering()
    world.end_pods()
    world.end_job()
    world.settle()
    world.edit(suspend=True)
    world.settle()
    assert world.phase == "Succeeded"
    assert world.status["observedGeneration"] == 2
    assert {item["observedGeneration"] for item in world.status["conditions"]} == {2}


def test_what_is_being_deleted_or_belongs_to_others_is_left_alone():
    assert World(deletionTimestamp=stamp(START)).planned() == plan.NOTHING
    assert World({"managedBy": "kueue.x-k8s.io/multikueue"}).planned() == plan.NOTHING


def test_when_every_shard_has_succeeded_nothing_more_is_awaited():
    world = rendering()
    world.end_pods()
    world.later(60)
    assert world.settle() == 0, "however long the Job controller takes"
    assert world.phase == "Rendering"


def test_no_prompt_in_any_status():
    world = rendering({"input": {"prompt": "SECRET-WORDS", "negativePrompt": "SECRET-WORDS"}})
    world.end_pods(10, **{"class": "invalid_input"})
    world.end_job("Failed", "FailedIndexes")
    world.settle()
    assert "SECRET-WORDS" not in str(world.status)
    assert "SECRET-WORDS" not in str(World({**DEFAULTS, "input": {"prompt": "SECRET-WORDS", "steps": 0}}).planned())


def test_pods_of_an_older_child_do_not_count_as_another_attempt_of_a_shard():
    world = rendering({"batch": {"count": 2, "shards": 2}})
    world.pods.append(pod(1, **running()))
    assert world.settle() == 0
    assert world.status["attempt"] == 1
