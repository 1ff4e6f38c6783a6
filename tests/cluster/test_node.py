"""Pods really run: under the restricted profile, with a GPU by CDI, with names and services, in reach of the host."""

import http.server
import json
import threading
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.cluster import commands
from tests.cluster.cluster import Cluster
from tests.cluster.kubectl import Kubectl, Object, Refused, condition, eventually
from tests.cluster.pods import exit_code, phase, restricted_pod, waiting_for

WAIT = "import signal; signal.pause()"
LOOK = """
import json, os, pathlib
devices = sorted(map(str, pathlib.Path("/dev").glob("nvidia*")))
seen = {"uid": os.getuid(), "gpu": os.environ.get("NVIDIA_VISIBLE_DEVICES"), "devices": devices}
status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
seen |= {key: status[key].strip() for key in ("CapEff", "NoNewPrivs", "Seccomp")}
try:
    open("/file", "w")
except OSError as error:
    seen["write"] = error.strerror
if devices:
    seen["written"] = open(devices[0], "wb").write(b"1")
print(json.dumps(seen))
"""
SERVE = "import http.server; http.server.test(http.server.SimpleHTTPRequestHandler, port=8080)"
FETCH = """
import time, urllib.request
for attempt in range(100):
    try:
        print(urllib.request.urlopen({url!r}, timeout=10).status)
        break
    except OSError as error:  # kube-proxy refuses until it has heard of the pod behind the service
        last = error
        time.sleep(0.2)
else:
    raise last
"""


def when(kubectl: Kubectl, name: str, *phases: str) -> Object:
    """The pod, once it is in one of the phases."""

    def look() -> Object | None:
        pod = kubectl.get("pod", name)
        return pod if phase(pod) in phases else None

    return eventually(f"pod {name} {' or '.join(phases)}", look)


def output(kubectl: Kubectl, name: str) -> str:
    """What a pod printed, once it has ended well."""
    ended = when(kubectl, name, "Succeeded", "Failed")
    log = kubectl("logs", name)
    assert exit_code(ended) == 0, log
    return log


def test_the_node_is_ready_and_offers_its_gpus(own_cluster: Cluster):
    node = own_cluster.kubectl.get("node", commands.NODE)
    ready = condition(node, "Ready")
    assert ready is not None
    assert ready["status"] == "True"
    assert own_cluster.allocatable_gpus() == own_cluster.gpus


def test_a_restricted_pod_has_the_gpu_it_asked_for_and_no_power(namespace: Kubectl, base_image: str):
    namespace.apply(restricted_pod("look", base_image, LOOK, gpus=1))
    assert json.loads(output(namespace, "look")) == {
        "uid": 65532,
        "gpu": "GPU-fake-0",
        "devices": ["/dev/nvidia0"],
        "written": 1,
        "write": "Read-only file system",
        **{"CapEff": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "2"},
    }


def test_a_pod_that_asked_for_no_gpu_sees_none(namespace: Kubectl, base_image: str):
    namespace.apply(restricted_pod("look", base_image, LOOK))
    seen = json.loads(output(namespace, "look"))
    assert (seen["gpu"], seen["devices"]) == (None, [])


def test_one_gpu_goes_from_pod_to_pod(own_cluster: Cluster, namespace: Kubectl, base_image: str):
    namespace.apply(restricted_pod("first", base_image, WAIT, gpus=own_cluster.gpus))
    when(namespace, "first", "Running")
    namespace.apply(restricted_pod("second", base_image, LOOK, gpus=1))
    eventually("no GPU left", lambda: "Insufficient nvidia.com/gpu" in waiting_for(namespace.get("pod", "second")))
    namespace.delete("pod", "first")
    assert json.loads(output(namespace, "second"))["devices"] == ["/dev/nvidia0"]


@pytest.fixture
def broken_gpus(own_cluster: Cluster) -> Iterator[None]:
    """All GPUs of the node are broken; they are whole again when the test has ended."""
    own_cluster.broken_gpus.write_text("*")
    eventually("no GPU offered", lambda: own_cluster.allocatable_gpus() == 0)
    yield
    own_cluster.broken_gpus.unlink(missing_ok=True)
    eventually("GPUs are back", lambda: own_cluster.allocatable_gpus() == own_cluster.gpus)


@pytest.mark.usefixtures("broken_gpus")
def test_a_broken_gpu_is_given_to_no_pod_until_it_is_mended(
    own_cluster: Cluster, namespace: Kubectl, base_image: str
):
    namespace.apply(restricted_pod("look", base_image, LOOK, gpus=1))
    eventually("waits", lambda: "Insufficient nvidia.com/gpu" in waiting_for(namespace.get("pod", "look")))
    own_cluster.broken_gpus.unlink()
    assert json.loads(output(namespace, "look"))["gpu"] == "GPU-fake-0"


def test_a_killed_gpu_plugin_takes_its_gpus_along_until_it_is_back(own_cluster: Cluster):
    plugin = own_cluster.processes["gpu-plugin"]
    plugin.kill()
    try:
        eventually("no GPU offered", lambda: own_cluster.allocatable_gpus() == 0)
    finally:
        plugin.start()
    eventually("GPUs are back", lambda: own_cluster.allocatable_gpus() == own_cluster.gpus)


def test_a_restarted_kubelet_knows_its_pods_and_is_told_of_its_gpus_again(
    own_cluster: Cluster, namespace: Kubectl, base_image: str
):
    namespace.apply(restricted_pod("long", base_image, WAIT, gpus=own_cluster.gpus))
    before = when(namespace, "long", "Running")["status"]["containerStatuses"][0]
    kubelet = own_cluster.processes["kubelet"]
    kubelet.kill()
    kubelet.start()
    namespace.apply(restricted_pod("look", base_image, LOOK))
    output(namespace, "look")
    after = namespace.get("pod", "long")["status"]["containerStatuses"][0]
    assert (after["containerID"], after["restartCount"]) == (before["containerID"], 0)
    namespace.delete("pod", "long")
    namespace.apply(restricted_pod("next", base_image, LOOK, gpus=1))
    assert json.loads(output(namespace, "next"))["gpu"] == "GPU-fake-0"


def test_a_service_is_found_by_name_from_a_pod_and_by_port_forward_from_here(namespace: Kubectl, base_image: str):
    web = {"app": "web"}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": web, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    namespace.apply(restricted_pod("web", base_image, SERVE, labels=web), service)
    when(namespace, "web", "Running")

    def answers() -> bool:
        with namespace.forward("service/web", 80) as url:
            return httpx.get(url, timeout=5).status_code == 200

    eventually("the service answers", lambda: _or_refused(answers))
    url = f"http://web.{namespace.namespace}.svc.cluster.local/"
    namespace.apply(restricted_pod("client", base_image, FETCH.format(url=url)))
    assert output(namespace, "client").strip() == "200"


def test_a_pod_reaches_a_server_of_the_host(own_cluster: Cluster, namespace: Kubectl, base_image: str):
    handler = http.server.SimpleHTTPRequestHandler
    with http.server.ThreadingHTTPServer((own_cluster.host_address, 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://{own_cluster.host_address}:{server.server_port}/"
        namespace.apply(restricted_pod("client", base_image, FETCH.format(url=url)))
        assert output(namespace, "client").strip() == "200"
        server.shutdown()


def _or_refused(look: Callable[[], bool]) -> bool:
    """A server that is still starting refuses connections."""
    try:
        return look()
    except httpx.TransportError as error:
        raise Refused(str(error)) from error
