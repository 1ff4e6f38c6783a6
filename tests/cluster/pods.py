"""Manifests of small pods for tests, admitted under the ``restricted`` profile."""

from tests.cluster.cluster import GPU
from tests.cluster.kubectl import Object


def restricted_pod(
    name: str, image: str, script: str, *, gpus: int = 0, labels: dict[str, str] | None = None
) -> Object:
    """A pod that runs a few lines of Python, once."""
    container: Object = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", script],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if gpus:
        container["resources"] = {"limits": {GPU: gpus}}
    spec: Object = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels or {}}, "spec": spec}


def phase(pod: Object) -> str:
    """``Pending``, ``Running``, ``Succeeded`` or ``Failed``."""
    value: str = pod["status"]["phase"]
    return value


def exit_code(pod: Object) -> int | None:
    """Of its one container, once that has ended."""
    states = pod["status"].get("containerStatuses", [])
    ended = states and states[0]["state"].get("terminated")
    return ended["exitCode"] if ended else None


def waiting_for(pod: Object) -> str:
    """Why the scheduler found no node, or nothing."""
    conditions = pod["status"].get("conditions", [])
    return next(
        (c.get("message", "") for c in conditions if c["type"] == "PodScheduled" and c["status"] == "False"), ""
    )
