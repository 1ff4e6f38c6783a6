"""``python -m tests.cluster up|down``: the developer's own cluster in this checkout, kept until it is taken down.

``import ARCHIVE`` gives it an image, as `docker save` or `buildah push` wrote it.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from tests.cluster import parts, requirements
from tests.cluster.cluster import Cluster


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    does = parser.add_subparsers(dest="do", required=True)
    does.add_parser("up", help="start it, installing and building what it lacks")
    does.add_parser("down", help="end it, and leave nothing behind")
    does.add_parser("parts", help="packages and programs, nothing started")
    take = does.add_parser("import", help="give it an image")
    take.add_argument("--state", type=Path, default=parts.STATE, help="another cluster's folder")
    take.add_argument("archive", type=Path)
    given = parser.parse_args()
    match given.do:
        case "up":
            return _parts() or _up()
        case "down":
            return _down()
        case "import":
            return _import(given.state, given.archive)
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


def _import(state: Path, packed: Path) -> int:
    cluster = Cluster(state)
    if not cluster.running:
        return _fail("none runs; `make cluster-up` starts one")
    cluster.take(packed.resolve())
    return 0


def _fail(reason: str) -> int:
    print(f"cluster: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
