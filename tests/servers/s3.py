"""An S3-compatible server for tests: one by URL, else versitygw from PATH, else the one ``make s3-server`` built."""

import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from dreamforge.storage.s3 import S3Location

URL_VARIABLE = "DF_TEST_S3_ENDPOINT"
KEY_VARIABLES = ("DF_TEST_S3_ACCESS_KEY_ID", "DF_TEST_S3_SECRET_ACCESS_KEY")
BUILT = Path(__file__).parents[2] / ".cache" / "bin" / "versitygw"
HEALTH = "/healthz"
_START_SECONDS = 20.0


@dataclass(frozen=True)
class S3Server:
    """A server and the root account on it."""

    endpoint: str
    access_key_id: str
    secret_access_key: str = field(repr=False)

    def location(self, bucket: str | None = None) -> S3Location:
        """Where to put a test's objects: a bucket of its own, not made yet."""
        return S3Location(
            bucket=bucket or f"test-{uuid4().hex[:16]}",
            endpoint=self.endpoint,
            access_key_id=self.access_key_id,
            secret_access_key=self.secret_access_key,
        )

    def environment(self, bucket: str) -> dict[str, str]:
        """The ``DF_*`` variables that point a process at this server."""
        return {
            "DF_STORE": "s3",
            "DF_S3_ENDPOINT": self.endpoint,
            "DF_S3_BUCKET": bucket,
            "DF_S3_ACCESS_KEY_ID": self.access_key_id,
            "DF_S3_SECRET_ACCESS_KEY": self.secret_access_key,
        }


def available() -> str | None:
    """Why there is no server, or ``None``."""
    if os.environ.get(URL_VARIABLE):
        missing = [variable for variable in KEY_VARIABLES if not os.environ.get(variable)]
        return f"{URL_VARIABLE} is set without {' and '.join(missing)}" if missing else None
    if _binary() is None:
        return f"no S3 server: set {URL_VARIABLE}, put versitygw on PATH, or run `make s3-server` (needs Go 1.24)"
    return None


@contextmanager
def server(folder: Path) -> Iterator[tuple[S3Server, str]]:
    """``(server, where it came from)``; ``folder`` takes its data."""
    if given := os.environ.get(URL_VARIABLE):
        access, secret = (os.environ[variable] for variable in KEY_VARIABLES)
        yield S3Server(given.rstrip("/"), access, secret), URL_VARIABLE
        return
    binary = _binary()
    assert binary is not None, "ask available() first"
    process = S3Process(binary, folder)
    process.start()
    try:
        yield process.server, f"versitygw ({binary})"
    finally:
        process.stop()


class S3Process:
    """One versitygw of our own, that a test may stop and start again at the same address."""

    def __init__(self, binary: Path, folder: Path) -> None:
        self._binary = binary
        self._folder = folder.resolve()  # the server changes its directory, so relative paths would be lost
        self._process: subprocess.Popen[bytes] | None = None
        self._port = _free_port()
        self.server = S3Server(f"http://127.0.0.1:{self._port}", "dreamforge-test", uuid4().hex)

    def start(self) -> None:
        """Start and wait until it answers."""
        data, accounts = self._folder / "data", self._folder / "accounts"
        for path in (data, accounts):
            path.mkdir(parents=True, exist_ok=True)
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(self._binary, "--port", f"127.0.0.1:{self._port}", "--health", HEALTH),
                    *("--iam-dir", accounts, "--quiet", "posix", data),
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={
                    **os.environ,
                    "ROOT_ACCESS_KEY": self.server.access_key_id,
                    "ROOT_SECRET_KEY": self.server.secret_access_key,
                },
            )
        try:
            self._wait_until_healthy(self._process)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop it, by force when it lingers."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _wait_until_healthy(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(self.server.endpoint + HEALTH, timeout=2) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                time.sleep(0.02)
        log = (self._folder / "server.log").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"versitygw did not start (exit {process.poll()}):\n{log}")


def own_process(folder: Path) -> S3Process | None:
    """A server that a test may stop; ``None`` when only a foreign one can be had."""
    binary = _binary()
    return S3Process(binary, folder) if binary else None


def _binary() -> Path | None:
    on_path = shutil.which("versitygw")
    if on_path:
        return Path(on_path)
    return BUILT if os.access(BUILT, os.X_OK) else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
