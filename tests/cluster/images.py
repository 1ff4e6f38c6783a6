"""The project's images for a cluster: built from the Dockerfiles by buildah, and given to the node as archives."""

import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.cluster import parts

BASE = "localhost/dreamforge-base:1"
TAG = "cluster"
_HERE = Path(__file__).parent
_BUILD_SECONDS = 840.0


class ImageBuildFailed(Exception):
    """``str()`` is the end of what the build said."""


def base() -> str:
    """What the others stand on, with Debian's Python; also good for a pod that runs a few lines of Python."""
    _run(_HERE / "base_image.sh", BASE)
    return BASE


def project(part: str, *, extras: str = "sketch") -> str:
    """``api``, ``operator`` or ``runner``, from its Dockerfile; layers that did not change are kept."""
    name = f"localhost/dreamforge-{part}:{TAG}"
    _run(
        *("env", "ENGINE=buildah", f"BASE_IMAGE={base()}", f"TAG={TAG}", "REGISTRY=localhost", f"EXTRAS={extras}"),
        *(parts.ROOT / "scripts" / "images.sh", part),
    )
    return name if extras == "sketch" else f"{name}-{extras}"


def identity(name: str) -> str:
    """Of the content: another build of the same name has another."""
    return _run("buildah", "inspect", "--type", "image", "--format", "{{.FromImageID}}", name).strip()


def hand_over(name: str, take: Callable[[Path], None]) -> None:
    """Give the image as an archive, which is gone afterwards, to whoever takes it."""
    with tempfile.TemporaryDirectory(prefix="dreamforge-image-") as folder:
        archive = Path(folder) / "image.tar"
        _run("buildah", "push", "--quiet", name, f"docker-archive:{archive}:{name}")
        take(archive)


def _run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_BUILD_SECONDS)
    if done.returncode:
        raise ImageBuildFailed(f"{' '.join(map(str, command))}:\n{(done.stdout + done.stderr)[-4000:]}")
    return done.stdout
