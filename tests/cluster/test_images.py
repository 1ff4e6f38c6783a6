"""The images start where they will run: on a node, under the restricted profile, beside real servers."""

import pytest

from tests.cluster import images
from tests.cluster.cluster import GPU
from tests.cluster.kubectl import Kubectl, Object, eventually
from tests.cluster.pods import exit_code, restricted_pod

PASSWORD = "trial-only"


def pod(name: str, image: str, *arguments: str, user: int = 65532, **environment: str) -> Object:
    """A restricted pod with the image's own entrypoint and room in /tmp."""
    made = restricted_pod(name, image, "", labels={"app": name})
    container = made["spec"]["containers"][0]
    del container["command"]
    container |= {"args": list(arguments), "env": [{"name": k, "value": v} for k, v in environment.items()]}
    container["volumeMounts"] = [{"name": "tmp", "mountPath": path} for path in ("/tmp", "/data")]
    made["spec"]["volumes"] = [{"name": "tmp", "emptyDir": {}}]
    made["spec"]["securityContext"] |= {"runAsUser": user, "runAsGroup": user, "fsGroup": user}
    return made


def service(name: str, port: int) -> Object:
    spec = {"selector": {"app": name}, "ports": [{"port": port}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def ended(kubectl: Kubectl, name: str) -> str:
    """The pod's log, once it has ended; failed pods fail the test with it."""
    eventually(f"pod {name} ends", lambda: exit_code(kubectl.get("pod", name)) is not None)
    code = exit_code(kubectl.get("pod", name))
    log = kubectl("logs", name)
    assert code == 0, log
    return log


def test_the_migration_runs_in_the_api_image_against_a_database_in_the_cluster(
    namespace: Kubectl, api_image: str, data_images: None
):
    postgres = pod(
        "postgres",
        images.STAND_INS["postgres"],
        "postgres",
        *("-k", "/tmp"),
        user=999,
        **{"POSTGRES_USER": "dreamforge", "POSTGRES_DB": "dreamforge", "POSTGRES_PASSWORD": PASSWORD},
        PGDATA="/data/pg",
    )
    ready = {"exec": {"command": ["pg_isready", "-U", "dreamforge", "-h", "127.0.0.1"]}, "periodSeconds": 1}
    postgres["spec"]["containers"][0]["readinessProbe"] = ready
    namespace.apply(postgres, service("postgres", 5432))
    namespace.wait_condition("pod", "postgres", "Ready")
    url = f"postgresql://dreamforge:{PASSWORD}@postgres:5432/dreamforge"
    namespace.apply(pod("migrate", api_image, "dreamforge_api.migrate", DF_DATABASE_URL=url))
    ended(namespace, "migrate")


@pytest.mark.parametrize("image", ["redis", "versitygw"])
def test_a_stand_in_starts_and_its_port_opens(namespace: Kubectl, data_images: None, image: str):
    arguments, port = {
        "redis": (["redis-server", "--dir", "/data"], 6379),
        "versitygw": (["--port", ":7070", "--health", "/healthz", "posix", "/data"], 7070),
    }[image]
    keys = {"ROOT_ACCESS_KEY": "dreamforge", "ROOT_SECRET_KEY": PASSWORD}
    server = pod("server", images.STAND_INS[image], *arguments, user=999, **keys)
    server["spec"]["containers"][0]["readinessProbe"] = {"tcpSocket": {"port": port}, "periodSeconds": 1}
    namespace.apply(server)
    namespace.wait_condition("pod", "server", "Ready")


def test_the_runner_and_the_operator_start(namespace: Kubectl, runner_image: str, operator_image: str):
    runner = pod("runner", runner_image, "--help")
    runner["spec"]["containers"][0]["resources"] = {"limits": {GPU: 1}}
    operator = pod("operator", operator_image, "--help")
    namespace.apply(runner, operator)
    assert "once" in ended(namespace, "runner")
    ended(namespace, "operator")
