"""Clusters for tests, from the lightest to the whole: an API server, one with controllers, a node that runs pods."""

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.cluster import control_plane, images, parts, requirements
from tests.cluster.cluster import Cluster
from tests.cluster.control_plane import ControlPlane
from tests.cluster.foreign import AnyCluster, ForeignCluster
from tests.cluster.kubectl import Kubectl
from tests.servers import s3

BUILD_SECONDS = 900
"""For a test whose fixtures build images for the first time."""

RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """etcd and kube-apiserver alone: objects are validated, defaulted and stored, and nothing acts on them."""
    yield from _control_plane(tmp_path_factory, controllers=False)


@pytest.fixture(scope="session")
def api_server_with_controllers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """The same with the built-in controllers: Jobs make pods, and owned objects follow their owner."""
    yield from _control_plane(tmp_path_factory, controllers=True)


def _control_plane(factory: pytest.TempPathFactory, *, controllers: bool) -> Iterator[ControlPlane]:
    if reason := control_plane.available(controllers=controllers):
        pytest.skip(reason)
    plane = ControlPlane(factory.mktemp("control-plane"), controllers=controllers)
    plane.start()
    yield plane
    plane.stop()


@pytest.fixture
def api_kubectl(api_server: ControlPlane) -> Kubectl:
    """kubectl in a namespace of the test's own, on the API server alone."""
    return fresh_namespace(Kubectl(api_server.kubeconfig))


@pytest.fixture
def controllers_kubectl(api_server_with_controllers: ControlPlane) -> Iterator[Kubectl]:
    """kubectl in a namespace of the test's own, on the API server with controllers."""
    kubectl = fresh_namespace(Kubectl(api_server_with_controllers.kubeconfig))
    yield kubectl
    kubectl.delete("namespace", kubectl.namespace)


@pytest.fixture(scope="session")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest, used: dict[str, str]
) -> Iterator[AnyCluster]:
    """The one KUBECONFIG names, else the one of ``make cluster-up``, else one that lives as long as these tests."""
    kept = Cluster(parts.STATE)
    given = os.environ.get("KUBECONFIG")
    if given and Path(given).resolve() != kept.kubeconfig:
        used["Kubernetes"] = f"KUBECONFIG ({given})"
        yield ForeignCluster(Path(given))
        return
    if kept.running:
        used["Kubernetes"] = "the one of make cluster-up"
        yield kept
        return
    if reason := requirements.missing():
        pytest.skip(reason)
    used["Kubernetes"] = f"its own ({parts.BIN})"
    own = Cluster(tmp_path_factory.mktemp("cluster"))
    own.up(owned=True)
    yield own
    if request.session.testsfailed:
        own.keep_logs()
    own.down()


@pytest.fixture(scope="session")
def own_cluster(cluster: AnyCluster) -> Cluster:
    """One whose processes and GPUs a test may break; it mends them before it ends."""
    if isinstance(cluster, ForeignCluster):
        pytest.skip("KUBECONFIG names a cluster that is not ours to break")
    return cluster


@pytest.fixture
def namespace(cluster: AnyCluster) -> Iterator[Kubectl]:
    """kubectl in a namespace of the test's own; it is deleted at the end, which nobody waits for."""
    kubectl = fresh_namespace(cluster.kubectl)
    yield kubectl
    kubectl.delete("namespace", kubectl.namespace)


@pytest.fixture(scope="session")
def base_image(cluster: AnyCluster) -> str:
    """Debian with Python, on the node."""
    name = images.base()
    cluster.load(name, name)
    return name


@pytest.fixture(scope="session")
def api_image(cluster: AnyCluster) -> str:
    """Of the API, the worker and the migration, on the node, under the name that the overlays use."""
    return _project_image("api", cluster)


@pytest.fixture(scope="session")
def operator_image(cluster: AnyCluster) -> str:
    return _project_image("operator", cluster)


@pytest.fixture(scope="session")
def runner_image(cluster: AnyCluster) -> str:
    return _project_image("runner", cluster)


@pytest.fixture(scope="session")
def cli_image(cluster: AnyCluster) -> str:
    """Of the command line, under the name that the Job which fetches models uses."""
    return _project_image("cli", cluster)


@pytest.fixture(scope="session")
def data_images(cluster: AnyCluster) -> None:
    """PostgreSQL, Redis and versitygw on the node, under the names that the components use."""
    if not s3.BUILT.exists():
        pytest.skip("versitygw is not built: run `make s3-server` (needs Go 1.24)")
    for stand_in, name in images.STAND_INS.items():
        cluster.load(images.stand_in(stand_in), name)


def _project_image(part: str, cluster: AnyCluster) -> str:
    name = images.project_name(part)
    cluster.load(images.project(part), name)
    return name


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests of this folder the time their fixtures may take."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(BUILD_SECONDS))


def fresh_namespace(kubectl: Kubectl) -> Kubectl:
    """A new namespace that admits ``restricted`` pods only."""
    name = f"test-{uuid4().hex[:12]}"
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}})
    return kubectl.within(name)
