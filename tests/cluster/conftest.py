"""Clusters for tests, from the lightest to the whole: an API server, one with controllers."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.cluster import control_plane
from tests.cluster.control_plane import ControlPlane
from tests.cluster.kubectl import Kubectl

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


def fresh_namespace(kubectl: Kubectl) -> Kubectl:
    """A new namespace that admits ``restricted`` pods only."""
    name = f"test-{uuid4().hex[:12]}"
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}})
    return kubectl.within(name)
