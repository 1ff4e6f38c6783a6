"""What is done to pods that render: evicted, deleted, lost with their node, cut off from the store.

All in real pods; the operator stands outside, with the rights of its Role. Stores are inside the pods unless a test
says so, hence an attempt that follows another begins with the first image.
"""

import json
from collections.abc import Iterator

import pytest

from dreamforge.renderjob import names
from dreamforge.spec import RenderSpec
from tests.cluster import commands
from tests.cluster.cluster import Cluster
from tests.cluster.conftest import fresh_namespace
from tests.cluster.foreign import AnyCluster
from tests.cluster.kubectl import Kubectl, Object, condition, eventually
from tests.cluster.operators import Operator, Played, in_pods, install_crd, render_job
from tests.contract.executor_kit import spec as render_spec

SECONDS_OF_WORK = {"input": {"prompt": "a lighthouse", "width": 1536, "height": 1536, "steps": 40}}
QUICK = {"input": {"prompt": "a lighthouse", "width": 256, "height": 256, "steps": 1}}
GRACE = 3
TOLD_WITHIN = 30.0
SMALL = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}}
NO_REDIS = {"DF_REDIS_URL": "redis://127.0.0.1:1/0", "DF_ACK_TIMEOUT_SECONDS": "1"}
NO_STORE = {
    **{"DF_STORE": "s3", "DF_S3_ENDPOINT": "http://127.0.0.1:1", "DF_S3_BUCKET": "images"},
    **{"DF_S3_ACCESS_KEY_ID": "x", "DF_S3_SECRET_ACCESS_KEY": "y"},
}
RUNTIMES: dict[str, Object] = {
    "default": {"resources": SMALL},
    "unheard": {"resources": SMALL, "env": NO_REDIS},
    "cut-off": {"resources": SMALL, "env": {**NO_REDIS, **NO_STORE}},
}


@pytest.fixture(scope="module")
def kubectl(cluster: AnyCluster) -> Iterator[Kubectl]:
    kubectl = fresh_namespace(cluster.kubectl)
    install_crd(kubectl)
    yield kubectl
    kubectl.delete("namespace", kubectl.namespace)


@pytest.fixture(scope="module", autouse=True)
def operator(kubectl: Kubectl, runner_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    operator = in_pods(kubectl, runner_image, tmp_path_factory.mktemp("operator"), RUNTIMES)
    operator.start()
    operator.wait_ready()
    yield operator
    assert operator.running, operator.last_words()
    operator.stop()


@pytest.fixture(scope="module", autouse=True)
def out_of_reach(kubectl: Kubectl, operator: Operator) -> tuple[Played, Played]:
    """Jobs that take their time to fail: they begin first, and are looked at last."""
    return (
        apply(kubectl, "unheard", **QUICK, runtimeRef={"name": "unheard"}, batch={"count": 2}),
        apply(kubectl, "cut-off", **QUICK, runtimeRef={"name": "cut-off"}, retry={"backoffLimit": 1}),
    )


def apply(kubectl: Kubectl, name: str, **spec: object) -> Played:
    kubectl.create(render_job(name, **{"limits": {"graceSeconds": GRACE}, **spec}))
    return Played(kubectl, name)


def evict(kubectl: Kubectl, pod: str) -> None:
    """As a drain does."""
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": kubectl.namespace}}
    path = f"/api/v1/namespaces/{kubectl.namespace}/pods/{pod}/eviction"
    kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body))


def delete(kubectl: Kubectl, pod: str) -> None:
    """As a person does."""
    kubectl.delete("pod", pod)


def test_a_pod_that_is_taken_away_has_one_successor(kubectl: Kubectl):
    """An eviction never counts as a try; a deletion does not either when the runner stops within its grace time."""
    work = {**SECONDS_OF_WORK, "batch": {"count": 24}}  # a quick machine draws four in two seconds
    evicted = apply(kubectl, "evicted", **work, retry={"backoffLimit": 0})
    deleted = apply(kubectl, "deleted", **work, retry={"backoffLimit": 1})
    for job, end in ((evicted, evict), (deleted, delete)):
        job.wait_phase("Rendering")
        end(kubectl, job.pods()[0]["metadata"]["name"])
    most = {evicted.name: 0, deleted.name: 0}

    def over() -> bool:
        for job in (evicted, deleted):
            most[job.name] = max(most[job.name], sum(_may_work(pod) for pod in job.pods()))
        return all(job.status.get("completionTime") for job in (evicted, deleted))

    eventually("both are over", over, timeout=300)
    assert most == {"evicted": 1, "deleted": 1}, "never two at once"
    for status in (evicted.status, deleted.status):
        assert (status["phase"], status["attempt"], status["progress"]["itemsDone"]) == ("Succeeded", 2, 24)


def test_a_deleted_renderjob_gives_its_gpu_back(kubectl: Kubectl):
    """The next one in the queue for the GPU has it within the grace time and the moment a pod needs to start."""
    holder = apply(kubectl, "holder", **SECONDS_OF_WORK, batch={"count": 100}, gpu={"count": 1})
    holder.wait_phase("Rendering")
    heir = apply(kubectl, "heir", **QUICK, gpu={"count": 1})
    eventually("it waits for the GPU", lambda: heir.reason("PodReady") == "NoGPU", timeout=TOLD_WITHIN)
    kubectl.delete("renderjob", "holder")
    kubectl.wait_condition("renderjob", "heir", "Complete")
    eventually("nothing is left", lambda: not holder.jobs() and not holder.pods())


def test_a_secret_that_went_before_the_start_is_told_and_its_return_is_enough(kubectl: Kubectl):
    order = render_spec()
    secret = _input_of(order)
    kubectl.apply(secret)
    ref = {"name": secret["metadata"]["name"], "key": names.INPUT_KEY}
    body = render_job("secret", suspend=True, jobId=str(order.job_id), inputSecretRef=ref)
    del body["spec"]["input"]
    kubectl.create(body)
    job = Played(kubectl, "secret")
    job.wait_phase("Suspended")
    kubectl.delete("secret", ref["name"])
    job.edit(suspend=False)
    eventually("it is told", lambda: job.reason("PodReady") == "SecretMissing", timeout=TOLD_WITHIN)
    assert job.status["phase"] == "Starting"
    assert ref["name"] in (condition(job.body, "PodReady") or {})["message"]
    kubectl.apply(secret)
    kubectl.wait_condition("renderjob", "secret", "Complete", timeout=180)


def test_a_node_that_is_lost_and_comes_back(own_cluster: Cluster, kubectl: Kubectl):
    """Nobody can say whether its pods still run: none takes their place before it is back."""
    job = apply(kubectl, "lost", **SECONDS_OF_WORK, batch={"count": 100})
    job.wait_phase("Rendering")
    (first,) = (pod["metadata"] for pod in job.pods())
    kubelet = own_cluster.processes["kubelet"]
    kubelet.kill()
    try:
        _declare_lost(own_cluster.kubectl)
        evict(kubectl, first["name"])  # the node controller's next step, which it does not take with its last node
        eventually("it is told", lambda: job.reason("PodReady") == "Disrupted", timeout=TOLD_WITHIN)
        assert job.status["phase"] == "Starting"
        assert [pod["metadata"]["uid"] for pod in job.pods()] == [first["uid"]]
    finally:
        kubelet.start()
    eventually("another pod", lambda: [pod for pod in job.pods() if pod["metadata"]["uid"] != first["uid"]])
    eventually("it goes on", lambda: (job.status["phase"], job.status["attempt"]) == ("Rendering", 2), timeout=90)
    job.edit(cancel=True)
    job.wait_phase("Canceled")
    eventually("GPUs are back", lambda: own_cluster.allocatable_gpus() == own_cluster.gpus)


def test_out_of_reach_of_redis_and_store_a_job_still_ends_with_the_truth(out_of_reach: tuple[Played, Played]):
    """Without Redis nobody hears of events: the runner's last words are enough. Without the store, it tries again."""
    unheard, cut_off = out_of_reach
    assert unheard.wait_phase("Succeeded", timeout=90)["artifacts"]["count"] == 2
    status = cut_off.wait_phase("Failed", timeout=120)
    assert status["failure"]["class"] == "storage_error"
    assert (status["failure"]["reason"], status["failure"]["retryable"]) == ("StorageError", True)
    assert (status["attempt"], status["artifacts"]["count"]) == (2, 0)


def _declare_lost(kubectl: Kubectl) -> None:
    """What the node controller says of a node that was silent for 50 s."""
    node = kubectl.get("node", commands.NODE)
    told = [
        {**one, "status": "Unknown", "reason": "NodeStatusUnknown"} if one["type"] == "Ready" else one
        for one in node["status"]["conditions"]
    ]
    kubectl.patch("node", commands.NODE, {"status": {"conditions": told}}, subresource="status")


def _may_work(pod: Object) -> bool:
    return pod["status"]["phase"] in ("Pending", "Running")


def _input_of(order: RenderSpec) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": names.resource_name(order.job_id)},
        "stringData": {names.INPUT_KEY: order.model_dump_json()},
    }
