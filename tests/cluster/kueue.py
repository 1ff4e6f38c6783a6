"""Kueue's controller manager as a process beside a control plane, with its own certificates and webhooks.

It is what its manifests install, but for the way in: a Service of type ExternalName leads the API server's webhooks
to this machine, because there is neither a pod nor a kube-proxy.
"""

import base64
import json
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import yaml

from tests.cluster import parts
from tests.cluster.kubectl import Kubectl, Object, eventually
from tests.cluster.machine import Machine
from tests.cluster.operators import ACCOUNT, ROOT
from tests.cluster.process import ChildProcess, Process

PROGRAM = "kueue"
COMPONENT = ROOT / "kustomize/components/kueue"
_NAMESPACE = "kueue-system"
_SERVICE = "kueue-webhook-service"
_SECRET = "kueue-webhook-server-cert"
_KINDS = ("Namespace", "CustomResourceDefinition", "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
_PRIORITIES = (("low", 1), ("high", 1000))
_START_SECONDS = 120.0


def missing() -> str | None:
    """Why there is no Kueue, or ``None``."""
    if parts.program(PROGRAM).exists() and _manifests().exists():
        return None
    return "kueue is not built: `make kueue-build` builds it (needs Go 1.26; 5 minutes)"


class Kueue:
    """One that manages Jobs with a queue, and nothing else; on this machine, or inside that of a cluster."""

    def __init__(self, kubectl: Kubectl, folder: Path, machine: Machine | None = None) -> None:
        self._kubectl = kubectl.within(_NAMESPACE)
        self._folder = folder
        self._address = machine.address if machine else "127.0.0.1"
        self._webhooks, self._health = _free_ports(2)
        config = folder / "kueue.json"
        config.write_text(json.dumps(self._configuration()))
        command: list[str | Path] = [parts.program(PROGRAM), f"--config={config}"]
        access = str(kubectl.kubeconfig)
        self._process: Process = (
            machine.process(PROGRAM, command, KUBECONFIG=access)
            if machine
            else ChildProcess(PROGRAM, ["env", f"KUBECONFIG={access}", *command], folder / "kueue.log")
        )

    def install(self) -> None:
        """Its kinds and webhooks, start, and wait until it answers."""
        manifests = self._folder / "manifests.yaml"
        manifests.write_text("\n---\n".join(_wanted(_manifests().read_text(), self._webhooks)))
        self._kubectl.within("")("apply", "--server-side", "-f", manifests)
        service = {"type": "ExternalName", "externalName": "localhost"}
        self._kubectl.apply(
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": _SERVICE}, "spec": service},
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": _SECRET}},
        )
        self._process.start()
        self._mount_certificates()
        self._wait_ready()

    def start(self) -> None:
        """After a stop; returns when its webhooks answer."""
        self._process.start()
        self._wait_ready()

    def stop(self) -> None:
        self._process.stop()

    def _wait_ready(self) -> None:
        eventually("Kueue is ready", self._ready, timeout=_START_SECONDS)

    def _mount_certificates(self) -> None:
        """As a kubelet does: what Kueue has written into its Secret appears in its folder."""
        data = eventually("Kueue's certificates", self._certificates, timeout=_START_SECONDS)
        folder = self._folder / "certs"
        folder.mkdir()
        for name, content in data.items():
            (folder / name).write_bytes(base64.b64decode(content))

    def _certificates(self) -> Object | None:
        assert self._process.running, self._process.last_words()
        data: Object = self._kubectl.get("secret", _SECRET).get("data", {})
        return data if "tls.crt" in data else None

    def _ready(self) -> bool:
        assert self._process.running, self._process.last_words()
        try:
            with urllib.request.urlopen(f"http://{self._address}:{self._health}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.HTTPError, OSError):
            return False

    def _configuration(self) -> Object:
        return {
            "apiVersion": "config.kueue.x-k8s.io/v1beta2",
            "kind": "Configuration",
            "namespace": _NAMESPACE,
            "health": {"healthProbeBindAddress": f"{self._address}:{self._health}"},
            "metrics": {"bindAddress": "0"},
            "webhook": {"host": "127.0.0.1", "port": self._webhooks, "certDir": str(self._folder / "certs")},
            "leaderElection": {"leaderElect": False},
            "internalCertManagement": {
                "enable": True,
                "webhookServiceName": _SERVICE,
                "webhookSecretName": _SECRET,
            },
            "integrations": {"frameworks": ["batch/job"]},
            "featureGates": {"VisibilityOnDemand": False},  # an API server of its own, which nobody asks
        }


def allow(kubectl: Kubectl) -> None:
    """What the component lets the operator do, in the namespace of the test."""
    (patch,) = yaml.safe_load((COMPONENT / "kustomization.yaml").read_text())["patches"]
    kubectl("patch", "role", ACCOUNT, "--type=json", "-p", json.dumps(yaml.safe_load(patch["patch"])))


def make_priorities(kubectl: Kubectl) -> None:
    """``low`` and ``high``."""
    kubectl.apply(*({**_object("WorkloadPriorityClass", name), "value": value} for name, value in _PRIORITIES))


def make_queue(kubectl: Kubectl, name: str, flavor: Object, quota: Mapping[str, str]) -> str:
    """A LocalQueue with a ClusterQueue and a flavor of its own, in which the high go before the low; its name."""
    resources = [{"name": resource, "nominalQuota": amount} for resource, amount in quota.items()]
    group = {"coveredResources": list(quota), "flavors": [{"name": name, "resources": resources}]}
    preemption = {"withinClusterQueue": "LowerPriority"}
    kubectl.apply(
        {**_object("ResourceFlavor", name), "spec": flavor},
        {
            **_object("ClusterQueue", name),
            "spec": {"namespaceSelector": {}, "resourceGroups": [group], "preemption": preemption},
        },
        {**_object("LocalQueue", name), "spec": {"clusterQueue": name}},
    )
    kubectl.wait_condition("localqueue", name, "Active")
    return name


def _object(kind: str, name: str) -> Object:
    return {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": kind, "metadata": {"name": name}}


def _manifests() -> Path:
    return parts.BIN / "kueue.yaml"


def _wanted(text: str, port: int) -> list[str]:
    """Of its manifests those that are no pod's, with its webhooks on our port; megabytes, so they are not parsed."""
    documents = [part for part in text.split("\n---\n") if re.search(rf"^kind: ({'|'.join(_KINDS)})$", part, re.M)]
    return [re.sub(rf"^( +)name: {_SERVICE}$", rf"\g<0>\n\g<1>port: {port}", part, flags=re.M) for part in documents]


def _free_ports(count: int) -> list[int]:
    """Bound all at once, so that they differ."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
