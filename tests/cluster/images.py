"""Images for a cluster: the project's own and stand-ins for public ones, built by buildah, never pulled."""

import hashlib
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.cluster import parts

BASE = "localhost/dreamforge-base:1"
STAND_INS = {
    "postgres": "postgres:17-bookworm",
    "redis": "redis:7-bookworm",
    "versitygw": "versity/versitygw:v1.8.0",
}
"""What the manifests ask for, by the name of its Dockerfile in ``tests/standins``."""

_HERE = Path(__file__).parent
_STAND_INS = _HERE.parent / "standins"
_CHECKOUT = hashlib.sha256(str(parts.ROOT).encode()).hexdigest()[:8]
BUILD_SECONDS = 840.0


class ImageBuildFailed(Exception):
    """``str()`` is the end of what the build said."""


def base() -> str:
    """What the others stand on, with Debian's Python; also good for a pod that runs a few lines of Python."""
    _run(_HERE / "base_image.sh", BASE)
    return BASE


def project(part: str) -> str:
    """``api``, ``operator`` or ``runner``, from its Dockerfile; other checkouts build under other names."""
    tag = f"test-{_CHECKOUT}"
    _run(
        *("env", "ENGINE=buildah", f"BASE_IMAGE={base()}", f"TAG={tag}", "REGISTRY=localhost", "EXTRAS=sketch"),
        *(parts.ROOT / "scripts" / "images.sh", part),
    )
    return f"localhost/dreamforge-{part}:{tag}"


def project_name(part: str) -> str:
    """As ``make images`` calls it, and hence the kind and e2e overlays."""
    return f"dreamforge-{part}:dev"


def stand_in(name: str) -> str:
    """One of ``STAND_INS``."""
    built = f"localhost/dreamforge-standin-{name}:1"
    _run(
        *("buildah", "bud", "--layers", "--force-rm", "--pull=never", "--format", "docker", "--isolation", "chroot"),
        *("--network", "host", "--build-arg", f"BASE={base()}", "-f", _STAND_INS / f"{name}.Dockerfile", "-t", built),
        parts.FOLDER.parent / "bin" if name == "versitygw" else _STAND_INS,
    )
    return built


def identity(image: str) -> str:
    """Of the content: another build of the same name has another."""
    return _run("buildah", "inspect", "--type", "image", "--format", "{{.FromImageID}}", image).strip()


def hand_over(image: str, name: str, take: Callable[[Path], None]) -> None:
    """Give the image, under a name, as an archive to whoever takes it; the archive is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="dreamforge-image-") as folder:
        archive = Path(folder) / "image.tar"
        _run("buildah", "push", "--quiet", image, f"docker-archive:{archive}:{name}")
        take(archive)


def _run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=BUILD_SECONDS)
    if done.returncode:
        raise ImageBuildFailed(f"{' '.join(map(str, command))}:\n{(done.stdout + done.stderr)[-4000:]}")
    return done.stdout
