"""A cluster that somebody else started, named by KUBECONFIG: kind, K3S, or a real one."""

import os
import shlex
import subprocess
from pathlib import Path

from tests.cluster import images
from tests.cluster.cluster import Cluster, allocatable_gpus
from tests.cluster.kubectl import Kubectl

LOAD_VARIABLE = "CLUSTER_LOAD"
"""How that cluster gets an image archive, e.g. ``kind load image-archive``; unset, it is taken to have the images."""


class ForeignCluster:
    """What tests use of any cluster; its processes and GPUs are not ours to break."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self.kubectl = Kubectl(kubeconfig)

    def load(self, image: str, name: str) -> None:
        if command := os.environ.get(LOAD_VARIABLE):
            images.hand_over(image, name, lambda packed: _run(*shlex.split(command), str(packed)))

    def allocatable_gpus(self) -> int:
        return allocatable_gpus(self.kubectl)


AnyCluster = Cluster | ForeignCluster


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
