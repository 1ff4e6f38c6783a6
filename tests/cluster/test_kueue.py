"""Kueue itself decides about the children: its quota, its node selectors, its preemption; tests play the kubelet."""

from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest

from tests.cluster import control_plane, kueue
from tests.cluster.conftest import fresh_namespace
from tests.cluster.control_plane import ControlPlane
from tests.cluster.kubectl import Kubectl, Object, condition, eventually
from tests.cluster.kueue import Kueue
from tests.cluster.operators import Operator, Played, install_crd, render_job

ONE = "500m"
"""The CPU of one runner: quota for one job."""
LABEL = "dreamforge.test/flavor"


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    """A control plane of its own: with Kueue's webhooks, no Job is made without Kueue."""
    if reason := kueue.missing() or control_plane.available(controllers=True):
        pytest.skip(reason)
    plane = ControlPlane(tmp_path_factory.mktemp("control-plane"), controllers=True)
    plane.start()
    try:
        yield Kubectl(plane.kubeconfig)
    finally:
        plane.stop()


@pytest.fixture(scope="module")
def manager(plane: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kueue]:
    manager = Kueue(plane, tmp_path_factory.mktemp("kueue"))
    try:
        manager.install()
        yield manager
    finally:
        manager.stop()


@pytest.fixture(scope="module")
def kubectl(plane: Kubectl, manager: Kueue) -> Kubectl:
    install_crd(plane)
    kubectl = fresh_namespace(plane)
    kueue.make_priorities(kubectl)
    return kubectl


@pytest.fixture(scope="module")
def operator(kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """With the rights of the base and of the component."""
    operator = Operator(kubectl, tmp_path_factory.mktemp("operator"))
    kueue.allow(kubectl)
    operator.start()
    operator.wait_ready()
    yield operator
    assert operator.running, operator.last_words()
    operator.stop()


@pytest.fixture
def queue(kubectl: Kubectl) -> str:
    """A queue with room for one job; its flavor's nodes have a label and a taint."""
    return make_queue(kubectl, f"queue-{uuid4().hex[:8]}")


@pytest.fixture
def apply(kubectl: Kubectl, operator: Operator, queue: str) -> Callable[..., Played]:
    def make(priority: str | None = None, **spec: object) -> Played:
        name = f"rj-{uuid4().hex[:8]}"
        asked = {"name": queue, **({"priorityClassName": priority} if priority else {})}
        kubectl.create(render_job(name, **{"queue": asked, **spec}))
        return Played(kubectl, name)

    return make


def make_queue(kubectl: Kubectl, name: str) -> str:
    taint = {"key": LABEL, "operator": "Exists", "effect": "NoSchedule"}
    flavor = {"nodeLabels": {LABEL: name}, "tolerations": [taint]}
    return kueue.make_queue(kubectl, name, flavor, {"cpu": ONE, "memory": "100Gi"})


def child(job: Played) -> Object:
    (found,) = job.jobs()
    return found


def waits(job: Played, reason: str) -> str:
    """Until the condition says why it is not admitted; its message."""
    eventually(f"{job.name} is not admitted: {reason}", lambda: job.reason("Admitted") == reason)
    told = condition(job.body, "Admitted") or {}
    assert told["status"] == "False"
    return str(told["message"])


def start(job: Played) -> Object:
    """Its one pod runs; the pod."""
    (pod,) = job.wait_pods()
    job.run(pod)
    job.wait_phase("Rendering")
    return pod


def test_an_admitted_job_runs_where_its_flavor_says_and_nobody_fights_that(
    apply: Callable[..., Played], operator: Operator, queue: str
) -> None:
    patched = operator.writes().get("patch jobs", 0)
    job = apply()
    pod = start(job)
    assert pod["spec"]["nodeSelector"] == {LABEL: queue}
    assert LABEL in [one.get("key") for one in pod["spec"]["tolerations"]]
    before = child(job)
    assert before["spec"]["suspend"] is False
    assert job.reason("Admitted") == "QuotaReserved"
    job.edit(ttlSecondsAfterFinished=7200)
    eventually("it was looked at again", lambda: job.status["observedGeneration"] == 2)
    after = child(job)
    assert (after["spec"], after["metadata"]["uid"]) == (before["spec"], before["metadata"]["uid"])
    job.end(pod, items_done=1)
    job.wait_phase("Succeeded")
    assert job.reason("Admitted") == "QuotaReserved"
    assert operator.writes().get("patch jobs", 0) == patched


def test_beyond_the_quota_it_waits_and_says_so_and_a_deletion_makes_room(
    apply: Callable[..., Played], kubectl: Kubectl
) -> None:
    first = apply()
    start(first)
    second = apply()
    status = second.wait_phase("Queued")
    assert "quota" in waits(second, "WaitingForQuota")
    assert (second.pods(), status["attempt"]) == ([], 0)
    kubectl.delete("renderjob", first.name)
    second.render()
    second.wait_phase("Succeeded")


def test_preempted_it_waits_and_goes_on_and_no_retry_is_counted(apply: Callable[..., Played]) -> None:
    low = apply("low", retry={"backoffLimit": 0})
    pod = start(low)
    high = apply("high")
    status = low.wait_phase("Queued")
    assert waits(low, "Preempted").startswith("Kueue took the job's quota back")
    assert "failure" not in status
    assert low.pods() == []
    high.render()
    high.wait_phase("Succeeded")
    again = start(low)
    assert again["metadata"]["uid"] != pod["metadata"]["uid"]
    assert low.status["attempt"] == 2
    assert child(low)["status"].get("failed", 0) == 0
    low.end(again, items_done=1)
    low.wait_phase("Succeeded")


def test_a_higher_priority_is_handed_on(apply: Callable[..., Played]) -> None:
    first = apply("low")
    start(first)
    waiting = apply("low")
    waits(waiting, "WaitingForQuota")
    waiting.edit(queue={"priorityClassName": "high"})
    waits(first, "Preempted")
    waiting.render()
    waiting.wait_phase("Succeeded")


def test_suspend_gives_the_quota_back_and_resume_asks_for_it_again(apply: Callable[..., Played]) -> None:
    job = apply()
    start(job)
    job.edit(suspend=True)
    job.wait_phase("Suspended")
    job.wait_pods(0)
    other = apply()
    pod = start(other)
    job.edit(suspend=False)
    job.wait_phase("Queued")
    other.end(pod, items_done=1)
    other.wait_phase("Succeeded")
    job.render()
    job.wait_phase("Succeeded")


def test_a_workload_that_a_person_made_inactive_is_not_fought(apply: Callable[..., Played], kubectl: Kubectl) -> None:
    job = apply()
    start(job)
    (workload,) = kubectl.list("workloads", f"kueue.x-k8s.io/job-uid={child(job)['metadata']['uid']}")
    name = workload["metadata"]["name"]
    kubectl.patch("workload", name, {"spec": {"active": False}})
    assert "not active" in waits(job, "Evicted")
    job.edit(ttlSecondsAfterFinished=7200)
    eventually("it was looked at again", lambda: job.status["observedGeneration"] == 2)
    assert kubectl.get("workload", name)["spec"]["active"] is False
    kubectl.patch("workload", name, {"spec": {"active": True}})
    job.render()
    job.wait_phase("Succeeded")


def test_the_namespaces_default_queue_takes_jobs_that_name_none(kubectl: Kubectl, operator: Operator) -> None:
    make_queue(kubectl, "default")
    try:
        kubectl.create(render_job("no-queue"))
        job = Played(kubectl, "no-queue")
        pod = start(job)
        assert pod["spec"]["nodeSelector"] == {LABEL: "default"}
        assert job.reason("Admitted") == "QuotaReserved"
        job.end(pod, items_done=1)
        job.wait_phase("Succeeded")
    finally:
        kubectl.delete("localqueue", "default")


def test_a_cancel_gives_the_quota_back(apply: Callable[..., Played], kubectl: Kubectl) -> None:
    running, waiting = apply(), apply()
    start(running)
    waits(waiting, "WaitingForQuota")
    third = apply()
    waits(third, "WaitingForQuota")
    for job in (waiting, running):
        job.edit(cancel=True)
        job.wait_phase("Canceled")
    third.render()
    third.wait_phase("Succeeded")


def test_a_queue_that_is_not_there_is_told_and_its_making_is_enough(
    apply: Callable[..., Played], kubectl: Kubectl
) -> None:
    name = f"late-{uuid4().hex[:8]}"
    job = apply(queue={"name": name})
    assert name in waits(job, "Inadmissible")
    make_queue(kubectl, name)
    job.render()
    job.wait_phase("Succeeded")


def test_a_priority_that_is_not_there_is_told_and_another_one_is_enough(apply: Callable[..., Played]) -> None:
    job = apply("none-such")
    assert "priority class" in waits(job, "NoWorkload")
    assert job.wait_phase("Queued")
    job.edit(queue={"priorityClassName": "high"})
    job.render()
    job.wait_phase("Succeeded")


def test_while_kueue_is_away_nothing_is_lost_and_what_waits_for_it_says_so(
    apply: Callable[..., Played], manager: Kueue
) -> None:
    """Its webhooks also stand before pods: the Job controller can't finish a Job until it is back."""
    running = apply()
    pod = start(running)
    manager.stop()
    try:
        late = apply()
        running.end(pod, items_done=1)
        eventually("it is told", lambda: late.reason("Accepted") == "RefusedByCluster")
        assert 'webhook "mjob.kb.io"' in (condition(late.body, "Accepted") or {})["message"]
        assert late.jobs() == []
        assert running.status["phase"] == "Rendering"
    finally:
        manager.start()
    running.wait_phase("Succeeded", timeout=180)
    late.render()
    late.wait_phase("Succeeded")


def test_an_operator_that_may_not_read_workloads_says_so(
    plane: Kubectl, manager: Kueue, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The component was left out."""
    kubectl = fresh_namespace(plane)
    install_crd(plane)
    operator = Operator(kubectl, tmp_path_factory.mktemp("operator"))
    operator.start()
    try:
        kubectl.create(render_job("one", queue={"name": "none"}))
        job = Played(kubectl, "one")
        eventually("it is told", lambda: "component" in (condition(job.body, "Admitted") or {}).get("message", ""))
        assert (job.reason("Admitted"), job.status["phase"]) == ("NoWorkload", "Queued")
    finally:
        operator.stop()


def test_the_components_queues_are_what_kueue_takes(plane: Kubectl, manager: Kueue) -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "dreamforge-runners"}}
    plane.apply(namespace)
    plane.within("dreamforge-runners").apply(kueue.COMPONENT / "queues.yaml")
    for kind, name in (("clusterqueue", "dreamforge"), ("localqueue", "render")):
        plane.within("dreamforge-runners").wait_condition(kind, name, "Active")
