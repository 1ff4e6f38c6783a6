"""The API server that CRD and operator tests stand on is a real one, and may be stopped and started again."""

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.cluster.kubectl import Kubectl, Refused, eventually


def config_map(name: str, **data: str):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def job(name: str):
    """Admitted under ``restricted``; never run, since no node is there."""
    container = {
        "name": "main",
        "image": "localhost/none:1",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    security = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    pod = {"restartPolicy": "Never", "securityContext": security, "containers": [container]}
    spec = {"completions": 2, "parallelism": 2, "completionMode": "Indexed", "template": {"spec": pod}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}


def test_objects_are_stored_and_given_back(api_kubectl: Kubectl):
    api_kubectl.apply(config_map("one", key="value"))
    assert api_kubectl.get("configmap", "one")["data"] == {"key": "value"}
    assert api_kubectl.find("configmap", "two") is None


def test_a_pod_that_breaks_the_restricted_profile_is_refused(api_kubectl: Kubectl):
    pod = {"containers": [{"name": "main", "image": "localhost/none:1"}]}
    with pytest.raises(Refused, match='violates PodSecurity "restricted'):
        api_kubectl.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bad"}, "spec": pod})


def test_a_service_account_may_do_what_its_role_says_and_no_more(api_kubectl: Kubectl):
    api_kubectl("create", "role", "reader", "--verb=get,list", "--resource=configmaps")
    api_kubectl("create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={api_kubectl.namespace}:robot")
    robot = api_kubectl.as_user(f"system:serviceaccount:{api_kubectl.namespace}:robot")
    robot.list("configmaps")
    with pytest.raises(Refused, match="cannot list resource"):
        robot.list("secrets")


def test_what_was_stored_outlives_a_killed_api_server(api_server: ControlPlane, api_kubectl: Kubectl):
    api_kubectl.apply(config_map("kept", key="value"))
    api_server.api_server.kill()
    with pytest.raises(Refused):
        api_kubectl.get("configmap", "kept")
    api_server.api_server.start()
    api_server.wait_until_ready()
    assert api_kubectl.get("configmap", "kept")["data"] == {"key": "value"}


def test_controllers_make_the_pods_of_a_job_and_take_them_along(controllers_kubectl: Kubectl):
    eventually("service account", lambda: controllers_kubectl.find("serviceaccount", "default"))
    controllers_kubectl.apply(job("pair"))
    eventually("two pods", lambda: len(controllers_kubectl.list("pods", "job-name=pair")) == 2)
    controllers_kubectl.delete("job", "pair")
    eventually("no pods", lambda: controllers_kubectl.list("pods", "job-name=pair") == [])
