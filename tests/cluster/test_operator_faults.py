"""What may happen to an operator: killed anywhere, doubled, cut off. Never a second pod, never a stuck job."""

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dreamforge.crashpoints import CrashPoint
from tests.cluster.conftest import fresh_namespace
from tests.cluster.control_plane import ControlPlane
from tests.cluster.kubectl import Kubectl, Object, Refused, eventually
from tests.cluster.operators import Operator, Played, install_crd, render_job

POINTS = [point for point in CrashPoint if point.startswith("operator.")]


@pytest.fixture(scope="module")
def admin(api_server_with_controllers: ControlPlane) -> Kubectl:
    kubectl = Kubectl(api_server_with_controllers.kubeconfig)
    install_crd(kubectl)
    return kubectl


@pytest.fixture
def kubectl(admin: Kubectl) -> Iterator[Kubectl]:
    kubectl = fresh_namespace(admin)
    yield kubectl
    kubectl.delete("namespace", kubectl.namespace)


def apply(kubectl: Kubectl, *names: str, **spec: object) -> list[Played]:
    kubectl.apply(*(render_job(name, **spec) for name in names))
    return [Played(kubectl, name) for name in names]


def by_name(kubectl: Kubectl, kind: str) -> dict[str, list[Object]]:
    """Children by the RenderJob they belong to."""
    found: dict[str, list[Object]] = {}
    for item in kubectl.list(kind, "app.kubernetes.io/managed-by=dreamforge-operator"):
        found.setdefault(item["metadata"]["labels"]["dreamforge.dev/renderjob"], []).append(item)
    return found


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_each_point_it_goes_on(point: CrashPoint, kubectl: Kubectl, tmp_path: Path):
    crashes = tmp_path / "crashes"
    operator = Operator(kubectl, tmp_path, DF_CRASH_DIR=str(crashes), DF_CRASH_AT=point.value)
    operator.start()
    try:
        (job,) = apply(kubectl, "one", suspend=True)
        eventually("it looks at the job", lambda: not operator.running or job.status.get("phase") == "Suspended")
        started_again = _revive(operator)
        job.edit(suspend=False)
        started_again += _pass(operator, job, "Starting")
        job.edit(suspend=True)
        started_again += _pass(operator, job, "Suspended")
        job.wait_pods(0)  # or the one that goes would be taken for the next one
        job.edit(suspend=False)
        started_again += _pass(operator, job, "Starting")
        (pod,) = job.wait_pods()
        job.run(pod)
        started_again += _pass(operator, job, "Rendering")
        job.edit(cancel=True)
        started_again += _pass(operator, job, "Canceled")
        assert (operator.marked(point), started_again) == (True, 1)
        assert (job.jobs(), job.pods()) == ([], [])
    finally:
        operator.stop()


def _revive(operator: Operator) -> int:
    """Start it again if it died, as its Deployment would; how often."""
    if operator.running:
        return 0
    operator.start()
    return 1


def _pass(operator: Operator, job: Played, phase: str) -> int:
    revived = 0
    deadline = time.monotonic() + 60
    while job.status.get("phase") != phase:
        revived += _revive(operator)
        assert time.monotonic() < deadline, f"not {phase}: {job.status.get('phase')}; {operator.last_words()}"
        time.sleep(0.1)
    return revived + _revive(operator)


def test_killed_at_random_under_fifty_jobs(kubectl: Kubectl, tmp_path: Path):
    names = [f"j{number:02}" for number in range(50)]
    operator = Operator(kubectl, tmp_path)
    operator.start()
    draw = random.Random(7)
    try:
        apply(kubectl, *names)
        for _ in range(4):
            operator.wait_ready()
            time.sleep(draw.uniform(0.0, 0.4))
            operator.kill()
            operator.start()
        eventually("all have a pod", lambda: len(by_name(kubectl, "pods")) == 50)
        assert {len(found) for found in by_name(kubectl, "pods").values()} == {1}
        assert {len(found) for found in by_name(kubectl, "jobs").values()} == {1}
        eventually("all say so", lambda: _phases(kubectl) == {"Starting"})
    finally:
        operator.stop()


def test_two_at_once_make_one_child_each(kubectl: Kubectl, tmp_path: Path):
    operators = [Operator(kubectl, tmp_path / name, name) for name in ("first", "second")]
    for operator in operators:
        operator.start()
    try:
        for operator in operators:
            operator.wait_ready()
        jobs = apply(kubectl, *(f"j{number:02}" for number in range(20)))
        eventually("all have a pod", lambda: len(by_name(kubectl, "pods")) == 20)
        for job in jobs[:3]:
            job.render()
            job.wait_phase("Succeeded")
        assert {len(found) for found in by_name(kubectl, "jobs").values()} == {1}
        eventually("all say so", lambda: _phases(kubectl) == {"Starting", "Succeeded"})
        assert all(operator.running for operator in operators)
    finally:
        for operator in operators:
            operator.stop()


def test_what_happened_while_it_was_down_is_made_good(kubectl: Kubectl, tmp_path: Path):
    operator = Operator(kubectl, tmp_path)
    operator.start()
    try:
        kept, dropped = apply(kubectl, "kept", "dropped")
        for job in (kept, dropped):
            job.wait_pods()
            job.wait_phase("Starting")
        operator.kill()
        (pod,) = kept.wait_pods()
        kept.run(pod)
        kept.end(pod, items_done=1)
        kubectl("delete", "renderjob", "dropped", "--cascade=orphan")
        (late,) = apply(kubectl, "late")
        operator.start()
        kept.wait_phase("Succeeded")
        late.wait_pods()
        eventually("nothing of a deleted RenderJob runs on", lambda: not dropped.jobs() and not dropped.pods())
    finally:
        operator.stop()


def test_edits_while_it_renders_touch_nothing_that_runs(kubectl: Kubectl, tmp_path: Path):
    operator = Operator(kubectl, tmp_path)
    operator.start()
    try:
        (job,) = apply(kubectl, "edited")
        (pod,) = job.wait_pods()
        job.run(pod)
        job.wait_phase("Rendering")
        for refused in ({"input": {"prompt": "another"}}, {"batch": {"count": 9}}, {"gpu": {"count": 1}}):
            with pytest.raises(Refused, match="can't be changed once the RenderJob exists"):
                job.edit(**refused)
        job.edit(ttlSecondsAfterFinished=7200)
        eventually("the edit is seen", lambda: job.status["observedGeneration"] == 2)
        assert [item["metadata"]["uid"] for item in job.pods()] == [pod["metadata"]["uid"]]
        job.end(pod, items_done=1)
        job.wait_phase("Succeeded")
        job.edit(cancel=True)
        eventually("that edit is seen", lambda: job.status["observedGeneration"] == 3)
        assert (job.status["phase"], len(job.pods())) == ("Succeeded", 1)
    finally:
        operator.stop()


def test_it_recovers_from_an_api_server_that_was_away(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory):
    plane = ControlPlane(tmp_path_factory.mktemp("plane"), controllers=True)
    plane.start()
    admin = Kubectl(plane.kubeconfig)
    install_crd(admin)
    kubectl = fresh_namespace(admin)
    operator = Operator(kubectl, tmp_path)
    operator.start()
    try:
        (before,) = apply(kubectl, "before")
        before.wait_phase("Starting")
        plane.api_server.stop()
        eventually("it notices", lambda: "no full pass" in operator.log.read_text())
        plane.api_server.start()
        eventually("the API server is back", lambda: before.status)
        if plane.controllers is not None and not plane.controllers.running:
            plane.controllers.start()  # it gives up when its API server goes while it starts
        (after,) = apply(kubectl, "after")
        after.wait_pods()
        before.render()
        before.wait_phase("Succeeded")
        plane.api_server.freeze()
        time.sleep(0.4)
        plane.api_server.thaw()
        after.render()
        after.wait_phase("Succeeded")
        assert operator.running
    finally:
        operator.stop()
        plane.stop()


def test_its_log_stays_json_under_faults(kubectl: Kubectl, tmp_path: Path):
    operator = Operator(kubectl, tmp_path, DF_REDIS_URL="redis://127.0.0.1:1/0")
    operator.start()
    try:
        (job,) = apply(kubectl, "one")
        job.render()
        job.wait_phase("Succeeded")
        eventually("Redis is missed", lambda: "announcements wait" in operator.log.read_text())
        assert all(isinstance(json.loads(line), dict) for line in operator.log.read_text().splitlines())
    finally:
        operator.stop()


def _phases(kubectl: Kubectl) -> set[str]:
    return {item.get("status", {}).get("phase", "") for item in kubectl.list("renderjobs")}
