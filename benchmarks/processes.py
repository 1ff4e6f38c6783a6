"""Programs under measurement, each in a process of its own: start, wait until it listens, read its CPU time, end."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.servers.stack import clean_environment

ROOT = Path(__file__).resolve().parent.parent
_START_SECONDS = 60.0


class Program:
    """A running ``python -m`` process; what it prints goes to ``folder/<name>.log``."""

    def __init__(self, name: str, argv: list[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *argv],
                stdout=log,
                stderr=log,
                cwd=folder,  # away from the checkout's .env
                env=own_environment(environment),
            )
        self._meter = psutil.Process(self._process.pid)

    def cpu_seconds(self) -> float:
        """User and system time since it started."""
        times = self._meter.cpu_times()
        return float(times.user + times.system)

    def resident_bytes(self) -> int:
        """Memory it holds now."""
        return int(self._meter.memory_info().rss)

    def wait_for_port(self, port: int) -> None:
        """Until it accepts connections."""
        deadline = time.monotonic() + _START_SECONDS
        while True:
            self.check()
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} does not listen: {self.log.read_text()[-2000:]}")
            time.sleep(0.05)

    def check(self) -> None:
        """Raise when it has ended."""
        if self._process.poll() is not None:
            raise RuntimeError(f"{self.name} ended {self._process.returncode}: {self.log.read_text()[-2000:]}")

    def kill(self) -> None:
        """SIGKILL: it can't say goodbye."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """SIGTERM, and SIGKILL when that does not help."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def program(name: str, argv: list[str], folder: Path, environment: Mapping[str, str]) -> Iterator[Program]:
    """A :class:`Program` for the length of the block."""
    folder.mkdir(parents=True, exist_ok=True)
    running = Program(name, argv, folder, environment)
    try:
        yield running
    finally:
        running.stop()


@contextmanager
def listening(
    name: str, argv: list[str], folder: Path, environment: Mapping[str, str], port: int
) -> Iterator[Program]:
    """A :class:`Program` that accepts connections on ``port``."""
    with program(name, argv, folder, environment) as running:
        running.wait_for_port(port)
        yield running


def own_environment(more: Mapping[str, str]) -> dict[str, str]:
    """This process's, without the project's settings, and able to import what this process can."""
    return clean_environment(PYTHONPATH=os.pathsep.join([str(ROOT), *filter(None, sys.path)]), **more)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
