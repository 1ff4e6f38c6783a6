"""An API server that forgot what its watchers knew, and one that is away while people go on posting jobs.

``OUTAGE_SECONDS=180 make test-cluster ARGS="-k away"`` is the long form of the latter.
"""

import asyncio
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from dreamforge.renderjob import names
from dreamforge_api.execution.base import Refused, TryLater
from dreamforge_api.execution.kubernetes import Connection, KubernetesExecutor
from dreamforge_operator import cluster as operators_cluster
from dreamforge_operator.cluster import RENDERJOBS, KubernetesCluster
from tests.api_server import Api
from tests.cluster.conftest import fresh_namespace
from tests.cluster.control_plane import ControlPlane, available
from tests.cluster.kubectl import Kubectl, eventually
from tests.cluster.operators import Operator, Played, connect, install_crd, render_job
from tests.contract.executor_kit import spec as render_spec
from tests.servers.worker import worker

OUTAGE_SECONDS = float(os.environ.get("OUTAGE_SECONDS") or 4)
SELDOM = {"DF_OPERATOR_PASS_SECONDS": "60"}
"""After the first full pass, what an operator knows comes from its watches."""


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """One whose processes these tests may stop."""
    if reason := available(controllers=True):
        pytest.skip(reason)
    plane = ControlPlane(tmp_path_factory.mktemp("plane"), controllers=True)
    plane.start()
    install_crd(Kubectl(plane.kubeconfig))
    yield plane
    plane.stop()


@pytest.fixture
def kubectl(plane: ControlPlane) -> Kubectl:
    return fresh_namespace(Kubectl(plane.kubeconfig))


def test_a_list_that_expires_on_the_way_begins_again(
    plane: ControlPlane, kubectl: Kubectl, monkeypatch: pytest.MonkeyPatch
):
    wanted = {f"j{number}" for number in range(5)}
    kubectl.apply(*(render_job(name) for name in sorted(wanted)))
    monkeypatch.setattr(operators_cluster, "_PAGE", 2)

    async def read() -> list[str]:
        found: list[str] = []
        async with KubernetesCluster(await connect(kubectl), kubectl.namespace) as cluster:
            async for page in cluster.pages(RENDERJOBS):
                if not found:
                    kubectl.patch("renderjob", "j0", {"metadata": {"labels": {"new": "revision"}}})
                    await asyncio.to_thread(_forget, plane)
                found += [item["metadata"]["name"] for item in page]
        return found

    found = asyncio.run(read())
    assert set(found) == wanted
    assert len(found) > len(wanted), "it did begin again"


def test_a_watch_from_before_a_compaction_begins_anew(plane: ControlPlane, kubectl: Kubectl, tmp_path: Path):
    operator = Operator(kubectl, tmp_path, **SELDOM)
    operator.start()
    try:
        kubectl.apply(render_job("before"))
        Played(kubectl, "before").wait_phase("Starting")
        old = Played(kubectl, "before").body["metadata"]["resourceVersion"]
        operator.freeze()
        kubectl.apply(*(render_job(f"meanwhile-{number}") for number in range(3)))
        kubectl.delete("renderjob", "before")
        _forget(plane)
        assert _watch(kubectl, old).find('"code":410') >= 0, "what the operator knew has expired"
        operator.thaw()
        kubectl.apply(render_job("after"))
        for name in ("meanwhile-0", "meanwhile-1", "meanwhile-2", "after"):
            Played(kubectl, name).wait_pods()
            Played(kubectl, name).wait_phase("Starting")
        assert operator.running
    finally:
        operator.stop()


def test_a_watch_of_children_goes_on_after_all_it_knew_has_expired(
    plane: ControlPlane, kubectl: Kubectl, tmp_path: Path
):
    operator = Operator(kubectl, tmp_path, **SELDOM)
    operator.start()
    try:
        kubectl.apply(render_job("one"))
        job = Played(kubectl, "one")
        (pod,) = job.wait_pods()
        eventually("no look is due any more", lambda: job.reason("PodReady") not in ("", "NotCreated"))
        _forget(plane)
        job.run(pod)
        job.wait_phase("Rendering")
    finally:
        operator.stop()


def test_while_it_is_away_jobs_are_taken_and_later_they_run(
    plane: ControlPlane, kubectl: Kubectl, database_url: str, redis_db: str, tmp_path: Path
):
    settings = {
        "DF_EXECUTOR": "kubernetes",
        "DF_NAMESPACE": kubectl.namespace,
        "KUBECONFIG": str(plane.kubeconfig),
    }
    operator = Operator(kubectl, tmp_path, DF_REDIS_URL=redis_db)
    operator.start()
    try:
        with (
            Api(tmp_path, database_url, redis_db, DF_RUNNER_BACKEND="sketch", **settings) as api,
            worker(tmp_path, database_url, redis_db, **settings),
        ):
            operator.wait_ready()
            before = api.create()["id"]
            _job(kubectl, before).wait_pods()
            plane.api_server.stop()
            taken = [before, *_posts(api, OUTAGE_SECONDS)]
            _back(plane)
            eventually("all run", lambda: _pods(kubectl, taken) == [1] * len(taken))
            for job_id in taken:
                assert api.client.post(f"/v1/jobs/{job_id}/cancel").status_code == 202
            eventually("all are over", lambda: {_status(api, one) for one in taken} == {"canceled"})
            eventually("nothing runs on", lambda: not any(_pods(kubectl, taken)))
            assert operator.running
    finally:
        operator.stop()


def test_whoever_may_do_nothing_while_the_api_server_is_not_ready_comes_again(
    plane: ControlPlane, kubectl: Kubectl, tmp_path: Path
):
    """Just after its start it refuses everybody: that is no word on the job."""
    nobody = tmp_path / "kubeconfig"
    nobody.write_text(re.sub('"token": "[^"]*"', '"username": "nobody"', kubectl.kubeconfig.read_text()))
    connection = Connection.open(nobody)
    executor = KubernetesExecutor(connection, kubectl.namespace)

    def refused() -> type[Exception]:
        with pytest.raises((Refused, TryLater)) as told:
            executor.submit(render_spec())
        return told.type

    assert refused() is Refused
    plane.etcd.freeze()
    try:
        eventually("it is not ready", lambda: refused() is TryLater)
    finally:
        plane.etcd.thaw()
        connection.close()


def _forget(plane: ControlPlane) -> None:
    """Let etcd forget every revision but the newest, and the API server what it still had in memory."""
    with httpx.Client(base_url=plane.at.etcd, timeout=10) as etcd:
        newest = etcd.post("/v3/kv/range", json={"key": "AA=="}).json()["header"]["revision"]
        answer = etcd.post("/v3/kv/compaction", json={"revision": newest, "physical": True})
        assert answer.status_code == 200, answer.text
    plane.api_server.stop()
    _back(plane)


def _back(plane: ControlPlane) -> None:
    plane.api_server.start()
    plane.wait_until_ready()
    if plane.controllers is not None and not plane.controllers.running:
        plane.controllers.start()  # it gives up when its API server goes while it starts


def _watch(kubectl: Kubectl, since: str) -> str:
    path = f"/apis/{names.API_VERSION}/namespaces/{kubectl.namespace}/renderjobs"
    done = kubectl.attempt("get", "--raw", f"{path}?watch=1&resourceVersion={since}&timeoutSeconds=1")
    return done.stdout + done.stderr


def _posts(api: Api, seconds: float) -> list[str]:
    """Ten jobs that are taken, one after the other, for so long."""
    began = time.monotonic()
    taken: list[str] = []
    while (passed := time.monotonic() - began) < seconds:
        if passed >= len(taken) * seconds / 10:
            taken.append(api.create()["id"])  # anything but 202 raises
        time.sleep(0.1)
    return taken


def _job(kubectl: Kubectl, job_id: str) -> Played:
    return Played(kubectl, f"rj-{job_id}")


def _pods(kubectl: Kubectl, job_ids: list[str]) -> list[int]:
    """How many pods each job has."""
    of = Counter(pod["metadata"]["labels"][names.LABEL_JOB_ID] for pod in kubectl.list("pods"))
    return [of[job_id] for job_id in job_ids]


def _status(api: Api, job_id: str) -> str:
    return str(api.client.get(f"/v1/jobs/{job_id}").json()["status"])
