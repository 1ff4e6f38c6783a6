"""``python -m tests.cluster up|down``: the developer's own cluster in this checkout, kept until it is taken down."""

import argparse
import subprocess
import sys

from tests.cluster import parts, requirements
from tests.cluster.cluster import Cluster


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("do", choices=("up", "down", "parts"), help="parts: packages and programs, nothing started")
    given = parser.parse_args()
    match given.do:
        case "up":
            return _parts() or _up()
        case "down":
            return _down()
        case _:
            return _parts()


def _parts() -> int:
    """What a cluster is made of, as far as this machine lets us have it."""
    if reason := requirements.install_packages():
        return _fail(reason)
    if built := subprocess.run([parts.BUILD], check=False).returncode:
        return built
    reason = requirements.missing()
    return _fail(reason) if reason else 0


def _up() -> int:
    cluster = Cluster(parts.STATE)
    if cluster.running:
        print("cluster: runs already; `make cluster-down` ends it", file=sys.stderr)
    else:
        cluster.up(owned=False)
        print(f"cluster: Kubernetes is up at {cluster.at.api}", file=sys.stderr)
    print(f"export KUBECONFIG={cluster.kubeconfig}")
    return 0


def _down() -> int:
    cluster = Cluster(parts.STATE)
    ran = cluster.machine.running
    cluster.down()
    print("cluster: ended" if ran else "cluster: none ran", file=sys.stderr)
    return 0


def _fail(reason: str) -> int:
    print(f"cluster: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
