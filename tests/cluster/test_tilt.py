"""The Tiltfile is run: `tilt ci` builds the images, brings up the system on a real cluster, and calls it healthy."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.cluster import images, parts
from tests.cluster.cluster import Cluster
from tests.cluster.kubectl import Kubectl

_SECONDS = 600


@pytest.fixture
def tilt(own_cluster: Cluster, data_images: None) -> Iterator[tuple[list[str], dict[str, str]]]:
    """The command and its environment; everything it has made is gone afterwards."""
    program = shutil.which("tilt", path=f"{os.environ['PATH']}:{parts.BIN}")
    if program is None:
        pytest.skip("tilt is not installed: `make tilt-build` builds it (needs Go 1.26; 5 minutes)")
    load = f"{sys.executable} -m tests.cluster import --state {own_cluster.folder}"
    environment = os.environ | {
        "KUBECONFIG": str(own_cluster.kubeconfig),
        "PATH": f"{parts.BIN}:{os.environ['PATH']}",
        "CLUSTER_LOAD": load,
        "ENGINE": "buildah",
        "BASE_IMAGE": images.base(),
        "TILT_DISABLE_ANALYTICS": "1",
    }
    yield [program], environment
    subprocess.run(
        [program, "down", "--delete-namespaces"], cwd=parts.ROOT, env=environment, check=False, timeout=120
    )


@pytest.mark.timeout(_SECONDS + 300)
def test_tilt_brings_the_system_up(tilt: tuple[list[str], dict[str, str]], own_cluster: Cluster) -> None:
    command, environment = tilt
    done = subprocess.run(
        [*command, "ci", "--port", "0", "--timeout", f"{_SECONDS}s"],
        cwd=parts.ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=_SECONDS + 60,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    platform = Kubectl(own_cluster.kubeconfig, namespace="dreamforge")
    for part in ("api", "worker", "operator"):
        platform.wait_condition("deployment", f"dreamforge-{part}", "Available")
