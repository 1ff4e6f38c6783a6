"""The operator as a process on a real API server with real controllers; tests play the kubelet."""

import json
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.cluster.conftest import fresh_namespace
from tests.cluster.control_plane import ControlPlane
from tests.cluster.kubectl import Kubectl, eventually
from tests.cluster.operators import Operator, Played, install_crd, render_job


@pytest.fixture(scope="module")
def kubectl(api_server_with_controllers: ControlPlane) -> Kubectl:
    kubectl = fresh_namespace(Kubectl(api_server_with_controllers.kubeconfig))
    install_crd(kubectl)
    return kubectl


@pytest.fixture(scope="module")
def operator(kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    operator = Operator(kubectl, tmp_path_factory.mktemp("operator"))
    operator.start()
    operator.wait_ready()
    yield operator
    assert operator.running, operator.last_words()
    operator.stop()


@pytest.fixture
def apply(kubectl: Kubectl, operator: Operator):
    def make(**spec: object) -> Played:
        name = f"rj-{uuid4().hex[:8]}"
        kubectl.create(render_job(name, **spec))
        return Played(kubectl, name)

    return make


def total(writes: dict[str, int]) -> int:
    return sum(writes.values())


def test_from_apply_to_complete_in_four_writes(apply, operator: Operator, kubectl: Kubectl):
    before = total(operator.writes())
    job = apply(batch={"count": 2})
    (pod,) = job.wait_pods()
    job.wait_phase("Starting")
    job.run(pod)
    job.wait_phase("Rendering")
    job.end(pod, items_done=2, vram_mib={"start": 1, "peak": 2, "end": 1}, clean=True)
    kubectl.wait_condition("renderjob", job.name, "Complete")
    status = job.wait_phase("Succeeded")
    assert status["progress"] == {"percent": 100, "itemsDone": 2, "itemsTotal": 2}
    assert status["items"]["succeeded"] == "0-1"
    assert status["observedGeneration"] == 1
    assert total(operator.writes()) - before == 4
    assert len(kubectl("get", "rj", job.name, "--no-headers").split()) >= 5


def test_the_child_is_what_was_asked_and_the_cluster_takes_it(apply, kubectl: Kubectl):
    job = apply(batch={"count": 4, "shards": 2}, retry={"backoffLimit": 1}, limits={"graceSeconds": 7})
    pods = job.wait_pods(2)
    (child,) = job.jobs()
    spec = child["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 2, 2)
    assert (spec["backoffLimitPerIndex"], spec["maxFailedIndexes"]) == (1, 0)
    assert spec["podReplacementPolicy"] == "Failed"
    for pod in pods:
        assert pod["spec"]["terminationGracePeriodSeconds"] == 7
        assert pod["spec"]["automountServiceAccountToken"] is False
        told = json.loads(pod["metadata"]["annotations"]["dreamforge.dev/render-spec"])
        assert told["job_id"] == job.status["jobId"] == pod["metadata"]["labels"]["dreamforge.dev/job-id"]
        assert told["shard"]["count"] == 2
    assert "castle" not in json.dumps({**job.body, "spec": None, "metadata": None})


@pytest.mark.parametrize(
    ("exit_code", "word", "reason", "retryable"),
    [(13, "gpu_oom", "GpuOom", False), (10, "invalid_input", "InvalidInput", False)],
)
def test_what_no_retry_helps_fails_at_once(apply, exit_code: int, word: str, reason: str, retryable: bool):
    job = apply()
    (pod,) = job.wait_pods()
    job.run(pod)
    job.end(pod, exit_code, **{"class": word})
    status = job.wait_phase("Failed")
    assert status["failure"] == {"class": word, "reason": reason, "exitCode": exit_code, "retryable": retryable}
    assert job.reason("Stalled") == "Failed"
    assert len(job.pods()) == 1


def test_a_failure_that_a_retry_may_mend_is_tried_again_and_then_told(apply):
    job = apply(retry={"backoffLimit": 1})
    for _ in range(2):
        (pod,) = job.wait_pods()
        job.run(pod)
        job.wait_phase("Rendering")
        job.end(pod, 20, **{"class": "storage_error"})
    status = job.wait_phase("Failed")
    assert status["failure"]["class"] == "storage_error"
    assert status["attempt"] == 2


def test_a_container_that_could_not_be_started_is_tried_again_and_a_cancel_still_stands(apply):
    """``StartError``: its times are those of 1970, which a status may not hold."""
    job = apply(retry={"backoffLimit": 1})
    never = {"exitCode": 128, "reason": "StartError", "startedAt": "1970-01-01T00:00:00Z"}
    (pod,) = job.wait_pods()
    job.play(pod, "Failed", {"terminated": {**never, "finishedAt": "2026-01-02T03:04:09Z"}})
    (pod,) = eventually("another pod", lambda: [item for item in job.pods() if item["status"]["phase"] == "Pending"])
    job.run(pod)
    job.wait_phase("Rendering")
    assert job.status["startTime"] == "2026-01-02T03:04:05Z"
    job.edit(cancel=True)
    job.wait_phase("Canceled")


def test_a_stop_on_request_does_not_count(apply):
    job = apply(retry={"backoffLimit": 0})
    (pod,) = job.wait_pods()
    job.run(pod)
    job.end(pod, 30, **{"class": "stopped"})
    (pod,) = eventually("another pod", lambda: [item for item in job.pods() if item["status"]["phase"] == "Pending"])
    job.run(pod)
    job.end(pod, items_done=1)
    job.wait_phase("Succeeded")


def test_a_cancel_stops_the_pods_and_stands(apply):
    job = apply()
    (pod,) = job.wait_pods()
    job.run(pod)
    job.wait_phase("Rendering")
    job.edit(cancel=True)
    status = job.wait_phase("Canceled")
    assert job.reason("Ready") == "Canceled"
    assert status["cancelRequestTime"]
    assert (job.jobs(), job.pods()) == ([], [])


def test_suspend_and_resume(apply):
    job = apply(suspend=True)
    job.wait_phase("Suspended")
    assert job.jobs() == []
    job.edit(suspend=False)
    (pod,) = job.wait_pods()
    job.run(pod)
    job.wait_phase("Rendering")
    job.edit(suspend=True)
    job.wait_phase("Suspended")
    job.wait_pods(0)
    job.edit(suspend=False)
    job.render()
    job.wait_phase("Succeeded")


def test_a_child_deleted_by_hand_comes_back(apply, kubectl: Kubectl):
    job = apply()
    (pod,) = job.wait_pods()
    job.run(pod)
    job.wait_phase("Rendering")
    first = job.jobs()[0]["metadata"]
    kubectl.delete("job", first["name"])
    eventually("a new child", lambda: any(item["metadata"]["uid"] != first["uid"] for item in job.jobs()))
    job.render()
    job.wait_phase("Succeeded")


@pytest.mark.parametrize("how", ["background", "foreground", "orphan"])
def test_deletion_leaves_nothing(apply, kubectl: Kubectl, how: str):
    job = apply()
    job.wait_pods()
    job.wait_phase("Starting")
    assert "finalizers" not in job.body["metadata"]
    kubectl("delete", "renderjob", job.name, f"--cascade={how}")
    eventually("its child is gone", lambda: not job.jobs() and not job.pods())


def test_a_foreign_job_is_not_adopted(apply, kubectl: Kubectl):
    job = apply(suspend=True)
    job.wait_phase("Suspended")
    uid = job.body["metadata"]["uid"]
    name = f"{job.name}-{uid.partition('-')[0]}"
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "x", "image": "x"}]}}
    foreign = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": template}}
    theirs = kubectl.create({**foreign, "spec": {"suspend": True, "template": template}})
    job.edit(suspend=False)
    eventually("the collision is told", lambda: job.reason("Accepted") == "NameCollision")
    assert kubectl.get("job", name)["metadata"]["uid"] == theirs["metadata"]["uid"]
    kubectl.delete("job", name)
    job.render()
    job.wait_phase("Succeeded")


def test_of_two_that_claim_one_job_the_older_wins(apply):
    job_id = str(uuid4())
    older = apply(jobId=job_id, suspend=True)
    older.wait_phase("Suspended")
    younger = apply(jobId=job_id)
    first, second = sorted(
        [older, younger], key=lambda item: (item.body["metadata"]["creationTimestamp"], item.body["metadata"]["uid"])
    )
    second.wait_phase("Failed")
    assert second.reason("Accepted") == "DuplicateJobId"
    assert first.status["phase"] != "Failed"


def test_a_quota_is_told_within_half_a_minute(apply, kubectl: Kubectl):
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none"},
        "spec": {"hard": {"pods": "0"}},
    }
    kubectl.apply(quota)
    eventually("the quota counts", lambda: "hard" in kubectl.get("resourcequota", "none").get("status", {}))
    try:
        job = apply()
        eventually("told", lambda: job.reason("PodReady") == "QuotaExceeded", timeout=30)
    finally:
        kubectl.delete("resourcequota", "none", wait=True)
    job.edit(cancel=True)
    job.wait_phase("Canceled")


def test_its_log_is_json_and_holds_no_prompt(apply, operator: Operator):
    apply(input={"prompt": "a very private prompt"}).wait_phase("Starting")
    lines = Path(operator.log).read_text().splitlines()
    assert all(isinstance(json.loads(line), dict) for line in lines)
    assert "private prompt" not in "".join(lines)
