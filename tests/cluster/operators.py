"""Operators as processes, with the rights of the shipped Role and no more; and a kubelet that tests play."""

import json
import os
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from dreamforge.crashpoints import CrashPoint
from tests.cluster.kubectl import PATIENCE_SECONDS, Kubectl, Object, condition, eventually
from tests.cluster.process import ChildProcess

ROOT = Path(__file__).resolve().parents[2]
CRD = ROOT / "crds/renderjobs.yaml"
ACCOUNT = "dreamforge-operator"


def install_crd(kubectl: Kubectl) -> None:
    kubectl.apply(CRD)
    kubectl.wait_condition("crd", "renderjobs.dreamforge.dev", "Established")
    eventually("discovery", lambda: "shortNames" in kubectl("get", "--raw", "/apis/dreamforge.dev/v1alpha1"))


class Operator(ChildProcess):
    """``kopf run``, as the image runs it."""

    def __init__(self, kubectl: Kubectl, folder: Path, name: str = "operator", **settings: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.kubectl = kubectl
        self.port = _free_port()
        self.crashes = folder / "crashes"
        self.crashes.mkdir(exist_ok=True)
        self._settings = {
            "PATH": os.environ["PATH"],
            "KUBECONFIG": str(account_kubeconfig(kubectl, folder)),
            "KOPF_RUN_NAMESPACE": kubectl.namespace,
            "DF_NAMESPACE": kubectl.namespace,
            "DF_OPERATOR_HOST": "127.0.0.1",
            "DF_OPERATOR_PORT": str(self.port),
            "DF_OPERATOR_PASS_SECONDS": "2",
            **settings,
        }
        kopf = Path(sys.executable).parent / "kopf"
        environment = [f"{key}={value}" for key, value in self._settings.items()]
        command = ["env", "-i", *environment, str(kopf), "run", "-m", "dreamforge_operator.handlers"]
        super().__init__(name, command, folder / f"{name}.log")

    def wait_ready(self, timeout: float = 60.0) -> None:
        eventually("the operator is ready", lambda: self.answers("/readyz") == 200, timeout=timeout)

    def answers(self, path: str) -> int:
        """The status of its own port; 0 when it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=2) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def writes(self) -> dict[str, int]:
        """Its writes to the API server so far, as ``verb resource``."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        found: dict[str, int] = {}
        for line in text.splitlines():
            if line.startswith("dreamforge_operator_writes_total{"):
                labels, value = line.rsplit(" ", 1)
                words = dict(part.split("=") for part in labels.partition("{")[2].rstrip("}").split(","))
                found[f"{words['verb']} {words['resource']}".replace('"', "")] = int(float(value))
        return found

    def marked(self, point: CrashPoint) -> bool:
        """It died there."""
        return (self.crashes / point.value).exists()


def in_pods(kubectl: Kubectl, image: str, folder: Path, runtimes: Mapping[str, Object]) -> Operator:
    """One whose pods are real: sketches in runners of this image, each with a store of its own."""
    own = {"DF_STORE": "filesystem", "DF_STORE_ROOT": "/tmp/store", "DF_RUNNER_BACKEND": "sketch"}
    kubectl.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "runner-env"}, "stringData": own})
    file = folder / "runtimes.json"
    file.write_text(json.dumps({"runtimes": runtimes}))
    settings = {"DF_RUNNER_IMAGE": image, "DF_RUNNER_ENV_SECRET": "runner-env", "DF_RUNTIMES_FILE": str(file)}
    return Operator(kubectl, folder, **settings)


def grant(kubectl: Kubectl) -> None:
    """The shipped Role and an account that has it, in the namespace of the test."""
    documents = yaml.safe_load_all((ROOT / "kustomize/base/rbac.yaml").read_text())
    role = next(item for item in documents if item["kind"] == "Role" and item["metadata"]["name"] == ACCOUNT)
    role["metadata"]["namespace"] = kubectl.namespace
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT}}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": ACCOUNT},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": ACCOUNT},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": kubectl.namespace}],
    }
    kubectl.apply(account, role, binding)


def account_kubeconfig(kubectl: Kubectl, folder: Path) -> Path:
    """The test's own, with the account's token in place of the admin's."""
    grant(kubectl)
    content = yaml.safe_load(kubectl.kubeconfig.read_text())
    token = kubectl("create", "token", ACCOUNT, "--duration=8h").strip()
    for user in content["users"]:
        user["user"] = {"token": token}
    for context in content["contexts"]:
        context["context"]["namespace"] = kubectl.namespace
    path = folder / "kubeconfig"
    path.write_text(json.dumps(content))
    path.chmod(0o600)
    return path


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def render_job(name: str, **spec: Any) -> Object:
    """A small job that needs no GPU."""
    return {
        "apiVersion": "dreamforge.dev/v1alpha1",
        "kind": "RenderJob",
        "metadata": {"name": name},
        "spec": {"modelRef": {"id": "sketch"}, "input": {"prompt": "a castle"}, "gpu": {"count": 0}, **spec},
    }


@dataclass(frozen=True)
class Played:
    """One RenderJob, seen by kubectl, its pods played by the test as a kubelet would."""

    kubectl: Kubectl
    name: str

    @property
    def body(self) -> Object:
        return self.kubectl.get("renderjob", self.name)

    @property
    def status(self) -> Object:
        found: Object = self.body.get("status", {})
        return found

    def reason(self, kind: str) -> str:
        return str((condition(self.body, kind) or {}).get("reason", ""))

    def jobs(self) -> list[Object]:
        return list(self.kubectl.list("jobs", f"dreamforge.dev/renderjob={self.name}"))

    def pods(self) -> list[Object]:
        return list(self.kubectl.list("pods", f"dreamforge.dev/renderjob={self.name}"))

    def edit(self, **spec: Any) -> None:
        self.kubectl.patch("renderjob", self.name, {"spec": spec})

    def wait_phase(self, phase: str, timeout: float = PATIENCE_SECONDS) -> Object:
        return eventually(
            f"{self.name} is {phase}",
            lambda: self.status if self.status.get("phase") == phase else None,
            timeout=timeout,
        )

    def wait_pods(self, count: int = 1, timeout: float = PATIENCE_SECONDS) -> list[Object]:
        """Exactly so many that are not over."""

        def live() -> tuple[list[Object]] | None:
            found = [pod for pod in self.pods() if pod["status"]["phase"] in ("Pending", "Running")]
            return (found,) if len(found) == count else None

        return eventually(f"{self.name} has {count} pods", live, timeout=timeout)[0]

    def play(self, pod: Object, phase: str, state: Mapping[str, Any]) -> None:
        """Say of a pod what its kubelet would."""
        ready = "True" if phase == "Running" else "False"
        status = {
            "phase": phase,
            "conditions": [{"type": "Ready", "status": ready}],
            "containerStatuses": [
                {
                    "name": "runner",
                    "image": "x",
                    "imageID": "x",
                    "ready": phase == "Running",
                    "restartCount": 0,
                    "state": dict(state),
                }
            ],
        }
        self.kubectl.patch("pod", pod["metadata"]["name"], {"status": status}, subresource="status")

    def run(self, pod: Object) -> None:
        self.play(pod, "Running", {"running": {"startedAt": "2026-01-02T03:04:05Z"}})

    def end(self, pod: Object, exit_code: int = 0, **words: Any) -> None:
        said = {"v": 1, "class": None, "exit_code": exit_code, "items_done": 0, "items_failed": 0, **words}
        state = {
            "exitCode": exit_code,
            "message": json.dumps(said),
            "startedAt": "2026-01-02T03:04:05Z",
            "finishedAt": "2026-01-02T03:04:09Z",
        }
        self.play(pod, "Failed" if exit_code else "Succeeded", {"terminated": state})

    def render(self) -> None:
        """All of its pods run and succeed."""
        for pod in self.wait_pods():
            self.run(pod)
            self.wait_phase("Rendering")
            self.end(pod, items_done=1)


async def connect(kubectl: Kubectl) -> ApiClient:
    """The operator's kind of connection to this cluster."""
    configuration = Configuration()
    file = str(kubectl.kubeconfig)
    await config.load_kube_config(file, client_configuration=configuration)  # type: ignore[no-untyped-call]
    return ApiClient(configuration)
