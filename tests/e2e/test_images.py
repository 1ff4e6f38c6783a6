"""The images as containers: nobody's process on a read-only root renders a job, and leaves when it is told to."""

import itertools
import json
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import pictures
from tests.e2e.client import Client

TAG = "dev"
#: What `restricted` asks of a pod, and a root nobody can write to.
HARDENED = ("--network", "host", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
NOBODY = 65532
ROOT = Path(__file__).parents[2]
#: The sources below some folders; migrations lie elsewhere in an image, and the runner's has no database code.
_DIGEST = """
import hashlib, pathlib, sys
digest = hashlib.sha256()
for root in map(pathlib.Path, sys.argv[1:]):
    for path in sorted(root.rglob("*.py")):
        if path.relative_to(root).parts[0] not in {"db", "migrations"}:
            digest.update(path.read_bytes())
print(digest.hexdigest())
"""


def missing() -> str | None:
    """Why no container of ours can run here, or why it would be yesterday's."""
    if (tool := engine()) is None:
        return "no docker or podman here"
    for part, folder in (("api", "api/dreamforge_api"), ("runner", "runner-image/dreamforge_runner")):
        name, program = f"dreamforge-{part}:{TAG}", ("-c", _DIGEST)
        inside = ("/app/dreamforge", f"/app/{Path(folder).name}")
        done = run(tool, "run", "--rm", *HARDENED, "--entrypoint", "python", name, *program, *inside)
        if done.returncode:
            return f"{name} does not run (make images): {done.stderr.strip()[-200:]}"
        here = run(sys.executable, *program, str(ROOT / "core/dreamforge"), str(ROOT / folder))
        if done.stdout != here.stdout:
            return f"{name} holds other code than this checkout: make images"
    return None


def engine() -> str | None:
    return next((name for name in ("docker", "podman") if run(name, "image", "ls").returncode == 0), None)


def run(*command: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    if shutil.which(command[0]) is None:
        return subprocess.CompletedProcess(command, 127, "", f"no {command[0]}")
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)


class Containers:
    """Containers of one test, on the host's network."""

    def __init__(self, folder: Path) -> None:
        self._engine = str(engine())
        self._run = f"dreamforge-test-{secrets.token_hex(4)}"
        self._numbers = itertools.count()
        self._folder = folder
        self.started: list[str] = []

    def start(self, image: str, *arguments: str, **settings: str) -> str:
        """The name of a container that runs in the background; its folder is the same for all."""
        name = f"{self._run}-{next(self._numbers)}"
        self.started.append(name)
        variables = [option for pair in settings.items() for option in ("-e", "=".join(pair))]
        done = run(
            *(self._engine, "run", "-d", "--name", name, *HARDENED, "--tmpfs", "/tmp", *variables),
            *("-v", f"{self._folder}:/var/lib/dreamforge", f"{image}:{TAG}", *arguments),
        )
        assert done.returncode == 0, done.stderr
        return name

    def ended(self, name: str, seconds: float = 60) -> int:
        """The exit code of a container that leaves by itself."""
        return int(run(self._engine, "wait", name, seconds=seconds).stdout)

    def stop(self, name: str) -> int:
        """SIGTERM to process 1, and nothing else for 20 s; the exit code."""
        run(self._engine, "stop", "-t", "20", name)
        return self.ended(name)

    def log(self, name: str) -> list[str]:
        done = run(self._engine, "logs", name)
        return (done.stdout + done.stderr).splitlines()

    def close(self) -> None:
        for name in self.started:
            print(name, *self.log(name)[-20:], sep="\n  ")  # pytest shows it when the test failed
            run(self._engine, "rm", "-f", name)


@pytest.fixture
def containers(tmp_path: Path) -> Iterator[Containers]:
    if reason := missing():
        pytest.skip(reason)
    folder = tmp_path / "data"
    folder.mkdir()
    shutil.chown(folder, NOBODY, NOBODY)
    made = Containers(folder)
    yield made
    made.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_a_job_through_the_images(containers: Containers, empty_database_url: str, redis_db: str):
    port = free_port()
    settings = {
        "DF_DATABASE_URL": empty_database_url,
        "DF_REDIS_URL": redis_db,
        "DF_SIGNING_KEY": secrets.token_hex(32),
        "DF_API_HOST": "127.0.0.1",
        "DF_API_PORT": str(port),
        "DF_API_PUBLIC_URL": f"http://127.0.0.1:{port}",
    }
    assert containers.ended(containers.start("dreamforge-api", "dreamforge_api.migrate", **settings)) == 0
    parts = [
        containers.start("dreamforge-api", **settings),
        containers.start("dreamforge-api", "dreamforge_api.worker", **settings),
        containers.start("dreamforge-runner", **settings),
    ]
    with Client(f"http://127.0.0.1:{port}") as client:
        client.until_ready()
        job = client.wait(client.post(count=2)["id"])
        found = [pictures.read(client.download(artifact)) for artifact in client.artifacts(job["id"])]
    assert [picture.size for picture in found] == [(256, 256)] * 2
    assert [containers.stop(name) for name in parts] == [0, 0, 0]
    for name in containers.started:
        lines = containers.log(name)
        assert [line for line in lines if not isinstance(json.loads(line), dict)] == []
        assert lines


def test_one_spec_file_as_a_pod_runs_it(containers: Containers, tmp_path: Path):
    spec = {
        "job_id": "00000000-0000-7000-8000-000000000001",
        "created_at": "2026-01-02T03:04:05Z",
        "correlation_id": "c",
        "params": {"prompt": "a castle", "width": 256, "height": 256},
        "model": {"id": "sketch", "name": "Sketch", "kind": "sketch", "version": "1"},
    }
    (tmp_path / "data" / "spec.json").write_text(json.dumps(spec))
    name = containers.start("dreamforge-runner", "once", "/var/lib/dreamforge/spec.json")
    assert containers.ended(name) == 0, containers.log(name)
    (image,) = (tmp_path / "data" / ".dreamforge" / "objects").rglob("*.png")
    assert pictures.read(image.read_bytes()).size == (256, 256)
    assert image.stat().st_uid == NOBODY
