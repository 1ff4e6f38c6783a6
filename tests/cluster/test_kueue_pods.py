"""Kueue and real pods on a cluster of their own: one GPU goes from the lower priority to the higher one and back."""

from collections.abc import Iterator

import pytest

from tests.cluster import images, kueue, requirements
from tests.cluster.cluster import GPU, Cluster
from tests.cluster.conftest import fresh_namespace
from tests.cluster.kubectl import Kubectl, Object, eventually
from tests.cluster.kueue import Kueue
from tests.cluster.operators import Played, in_pods, install_crd, render_job

GRACE = 3
LONG = {"input": {"prompt": "a lighthouse", "width": 1536, "height": 1536, "steps": 40}, "batch": {"count": 100}}
SMALL: Object = {"resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}}}


@pytest.fixture(scope="module")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    """A namespace with a queue, an operator, and runners in pods; Kueue's webhooks stand before every Job."""
    if reason := kueue.missing() or requirements.missing():
        pytest.skip(reason)
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    cluster.up(owned=True)
    try:
        image = images.project_name("runner")
        cluster.load(images.project("runner"), image)
        install_crd(cluster.kubectl)
        home = cluster.folder / "kueue"
        home.mkdir()
        Kueue(cluster.kubectl, home, cluster.machine).install()
        kubectl = fresh_namespace(cluster.kubectl)
        kueue.make_priorities(kubectl)
        linux = {"nodeLabels": {"kubernetes.io/os": "linux"}}
        kueue.make_queue(kubectl, "gpu", linux, {"cpu": "4", "memory": "100Gi", GPU: "1"})
        operator = in_pods(kubectl, image, tmp_path_factory.mktemp("operator"), {"default": SMALL})
        kueue.allow(kubectl)
        operator.start()
        operator.wait_ready()
        yield kubectl
        operator.stop()
    finally:
        cluster.keep_logs()
        cluster.down()


def apply(kubectl: Kubectl, name: str, **spec: object) -> Played:
    queue = {"name": "gpu", "priorityClassName": name}
    limits = {"graceSeconds": GRACE}
    kubectl.create(render_job(name, queue=queue, limits=limits, gpu={"count": 1}, retry={"backoffLimit": 0}, **spec))
    return Played(kubectl, name)


def test_a_gpu_goes_to_the_higher_priority_and_comes_back(kubectl: Kubectl) -> None:
    low = apply(kubectl, "low", **LONG)
    low.wait_phase("Rendering", timeout=120)
    high = apply(kubectl, "high", **LONG)
    high.wait_phase("Rendering", timeout=120)
    low.wait_phase("Queued")
    eventually("it is preempted", lambda: low.reason("Admitted") == "Preempted" and not low.pods())
    high.edit(cancel=True)
    high.wait_phase("Canceled")
    again = eventually("it goes on", lambda: low.status if low.status["attempt"] == 2 else None, timeout=120)
    assert (again["phase"], again.get("failure")) == ("Rendering", None)
    (child,) = low.jobs()
    assert child["status"].get("failed", 0) == 0
    low.edit(cancel=True)
    low.wait_phase("Canceled")
    eventually("nothing is left", lambda: not low.pods() and not kubectl.list("workloads", _of(child)))
    assert high.status["attempt"] == 1


def _of(child: Object) -> str:
    return f"kueue.x-k8s.io/job-uid={child['metadata']['uid']}"
