"""The programs a cluster is made of: where they lie, and what a machine lacks to have them."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".cache" / "cluster"
BIN = Path(os.environ.get("CLUSTER_BIN") or FOLDER / "bin")
"""Several checkouts may share one folder of programs."""
STATE = FOLDER / "state"
BUILD = Path(__file__).with_name("build.sh")
MACHINE = Path(__file__).with_name("machine")

API_SERVER = ("etcd", "kube-apiserver")
CONTROLLERS = ("kube-controller-manager",)
NODE = (
    *("kube-scheduler", "kubelet", "kube-proxy", "coredns"),
    *("containerd", "containerd-shim-runc-v2", "ctr", "runc", "pause"),
)


def program(name: str) -> Path:
    """Where ``build.sh`` puts it."""
    return BIN / name


def not_built(names: Iterable[str]) -> str | None:
    """Why the programs cannot be started, or ``None``."""
    missing = [name for name in names if not os.access(program(name), os.X_OK)]
    if not missing:
        return None
    needs = "" if shutil.which("go") else " (needs Go 1.26 or newer, which is not installed)"
    return f"{', '.join(missing)} not built: run `make cluster-build`{needs}"


def kubectl() -> Path | None:
    """The one ``build.sh`` made, which has the servers' version, else the one on PATH."""
    if os.access(program("kubectl"), os.X_OK):
        return program("kubectl")
    found = shutil.which("kubectl")
    return Path(found) if found else None
