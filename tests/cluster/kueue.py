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
from pathlib import Path

from tests.cluster import parts
from tests.cluster.kubectl import Kubectl, Object, eventually
from tests.cluster.process import ChildProcess

PROGRAM = "kueue"
_NAMESPACE = "kueue-system"
_SERVICE = "kueue-webhook-service"
_SECRET = "kueue-webhook-server-cert"
_KINDS = ("Namespace", "CustomResourceDefinition", "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
_START_SECONDS = 120.0


def missing() -> str | None:
    """Why there is no Kueue, or ``None``."""
    if parts.program(PROGRAM).exists() and _manifests().exists():
        return None
    return "kueue is not built: `make kueue-build` builds it (needs Go 1.26; 5 minutes)"


class Kueue(ChildProcess):
    """One that manages Jobs with a queue, and nothing else."""

    def __init__(self, kubectl: Kubectl, folder: Path) -> None:
        self._kubectl = kubectl.within(_NAMESPACE)
        self._folder = folder
        self._webhooks, self._health = _free_ports(2)
        config = folder / "kueue.json"
        config.write_text(json.dumps(self._configuration()))
        environment = f"KUBECONFIG={kubectl.kubeconfig}"
        command: list[str | Path] = ["env", environment, parts.program(PROGRAM), f"--config={config}"]
        super().__init__(PROGRAM, command, folder / "kueue.log")

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
        self.start()
        self._mount_certificates()
        self.wait_ready()

    def wait_ready(self) -> None:
        """Until its webhooks answer."""
        eventually("Kueue is ready", self._ready, timeout=_START_SECONDS)

    def _mount_certificates(self) -> None:
        """As a kubelet does: what Kueue has written into its Secret appears in its folder."""
        data = eventually("Kueue's certificates", self._certificates, timeout=_START_SECONDS)
        folder = self._folder / "certs"
        folder.mkdir()
        for name, content in data.items():
            (folder / name).write_bytes(base64.b64decode(content))

    def _certificates(self) -> Object | None:
        assert self.running, self.last_words()
        data: Object = self._kubectl.get("secret", _SECRET).get("data", {})
        return data if "tls.crt" in data else None

    def _ready(self) -> bool:
        assert self.running, self.last_words()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._health}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.HTTPError, OSError):
            return False

    def _configuration(self) -> Object:
        return {
            "apiVersion": "config.kueue.x-k8s.io/v1beta2",
            "kind": "Configuration",
            "namespace": _NAMESPACE,
            "health": {"healthProbeBindAddress": f"127.0.0.1:{self._health}"},
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
