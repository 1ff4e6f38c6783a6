"""An engine for Compose: Docker where it answers, else Podman behind a socket of the tests' own."""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.cluster import parts
from tests.cluster.requirements import no_namespaces
from tests.servers.stack import until

BUILT = parts.ROOT / ".cache" / "bin" / "docker-compose"
"""What ``build.sh`` makes."""

_DOCKER_SOCKET = "unix:///var/run/docker.sock"
_CGROUP_V2 = Path("/sys/fs/cgroup/cgroup.controllers")
_PACKAGES = {
    "podman": "podman",
    "conmon": "conmon",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
    "/usr/lib/podman/netavark": "netavark",
    "/usr/lib/podman/aardvark-dns": "aardvark-dns",
}
_CONF = """\
[containers]
# Else a container gets this host's limits, which a root without CAP_SYS_RESOURCE may not set.
default_ulimits = ["nofile=20000:20000", "nproc=20000:20000"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
# Else `dreamforge-api:dev` would be the one of a registry, never the one that was built here.
compat_api_enforce_docker_hub = false
{runtime}
[network]
network_backend = "netavark"
"""
_RUNTIME = 'runtime = "built"\n[engine.runtimes]\nbuilt = ["{runc}"]'


class Engine:
    """What answers on a Docker socket."""

    def __init__(self, name: str, host: str, environment: dict[str, str]) -> None:
        self.name = name
        self.environment = {**environment, "DOCKER_HOST": host, "PATH": f"{BUILT.parent}:{os.environ['PATH']}"}
        transport = httpx.HTTPTransport(uds=host.removeprefix("unix://"))
        self.http = httpx.Client(transport=transport, base_url="http://engine", timeout=60)

    def container(self, identity: str) -> dict[str, Any]:
        """All the engine knows of one."""
        found: dict[str, Any] = self.http.get(f"/containers/{identity}/json").raise_for_status().json()
        return found

    def left(self, kind: str, project: str) -> list[str]:
        """Names of ``volumes`` or ``networks`` that carry a project's name."""
        answer = self.http.get(f"/{kind}").raise_for_status().json()
        found = answer["Volumes"] or [] if kind == "volumes" else answer
        return [entry["Name"] for entry in found if entry["Name"].startswith(f"{project}_")]


def docker() -> bool:
    """Whether a Docker daemon of this machine answers."""
    if not shutil.which("docker") or not os.environ.get("DOCKER_HOST", _DOCKER_SOCKET).startswith("unix://"):
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False, timeout=60).returncode == 0


def compose() -> list[str] | None:
    """Docker Compose, as a plugin or as a program."""
    if (
        docker()
        and subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0
    ):
        return ["docker", "compose"]
    found = str(BUILT) if os.access(BUILT, os.X_OK) else shutil.which("docker-compose")
    return [found] if found else None


def missing() -> str | None:
    """Why nothing can be composed here, or ``None``."""
    if not docker() and (reason := _no_podman()):
        return f"no Docker daemon answers, and {reason}"
    if not compose():
        needs = "" if shutil.which("go") else " (needs Go 1.24 or newer, which is not installed)"
        return f"Docker Compose is not installed: tests/compose/build.sh builds it{needs}"
    return None


def _no_podman() -> str | None:
    if not sys.platform.startswith("linux"):
        return "Podman takes its place on Linux only"
    if os.geteuid() != 0:
        return "Podman takes its place as root only"
    if packages := sorted(package for program, package in _PACKAGES.items() if not shutil.which(program)):
        return f"packages that take its place are missing, by their Debian names: {' '.join(packages)}"
    if not parts.program("runc").exists() and not _CGROUP_V2.exists():
        return "Podman takes its place on a host with cgroup v2 alone, or with the runc of `make cluster-build`"
    return no_namespaces()


@contextmanager
def running() -> Iterator[Engine]:
    """The engine for as long as the tests need it."""
    if docker():
        engine = Engine("docker", os.environ.get("DOCKER_HOST", _DOCKER_SOCKET), {})
        with closing(engine.http):
            yield engine
    else:
        with tempfile.TemporaryDirectory(prefix="dreamforge-engine-") as folder, _podman(Path(folder)) as engine:
            yield engine


@contextmanager
def _podman(folder: Path) -> Iterator[Engine]:
    runc = parts.program("runc")  # built for the test cluster; Debian's crun refuses a host with cgroups v1 and v2
    conf, socket = folder / "containers.conf", folder / "podman.sock"
    conf.write_text(_CONF.format(runtime=_RUNTIME.format(runc=runc) if runc.exists() else ""))
    environment = {"CONTAINERS_CONF": str(conf)}
    with (folder / "service.log").open("wb") as log:
        service = subprocess.Popen(
            ["podman", "system", "service", "--time=0", f"unix://{socket}"],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    over = threading.Event()
    try:
        until(lambda: socket.exists() or service.poll() is not None, 30, "the socket of podman")
        assert service.poll() is None, (folder / "service.log").read_text()
        engine = Engine("podman", f"unix://{socket}", environment)
        checks = threading.Thread(target=_check_health, args=(str(socket), over), daemon=True)
        checks.start()
        with closing(engine.http):
            yield engine
        over.set()
        checks.join(30)
    finally:
        over.set()
        service.terminate()
        service.wait(30)


def _check_health(socket: str, over: threading.Event) -> None:
    """What systemd's timers do for podman on other machines: without them nothing runs a check."""
    only = {"filters": '{"health":["starting","healthy","unhealthy"]}'}
    path = "/v4.0.0/libpod/containers"
    with httpx.Client(transport=httpx.HTTPTransport(uds=socket), base_url="http://engine", timeout=20) as client:
        while not over.wait(1):
            try:
                answer = client.get(f"{path}/json", params=only)
                for container in (answer.json() or []) if answer.status_code == 200 else []:
                    client.get(f"{path}/{container['Id']}/healthcheck")
            except httpx.TransportError:
                continue
