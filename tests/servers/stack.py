"""`dreamforge up` as a person starts it: a process with a data folder, a ready line, and children."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import psutil

READY = "dreamforge ready: "


def until(condition: Callable[[], Any], seconds: float = 120, what: str = "it") -> Any:
    """The first true answer of ``condition``; an ``AssertionError`` when none comes in time."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen in {seconds} s"
        time.sleep(0.05)
    return answer


def clean_environment(**more: str) -> dict[str, str]:
    """This environment without the project's settings, and ``more``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DF_")}
    return {**kept, **more}


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "dreamforge_cli", *map(str, arguments)]


class Up:
    """One run of `up`. ``start`` waits for the ready line; ``end`` leaves nothing behind."""

    def __init__(self, data: Path, *arguments: str | Path, environment: Mapping[str, str] | None = None) -> None:
        self.data = data
        self.url = ""
        self._arguments = arguments
        self._environment = clean_environment(**(environment or {}))
        self._out = data.with_name(f"{data.name}.stdout")
        self._remarks = data.with_name(f"{data.name}.stderr")
        self.process: subprocess.Popen[str] | None = None

    def spawn(self) -> None:
        """Start it and wait for nothing."""
        self.data.parent.mkdir(parents=True, exist_ok=True)
        with self._out.open("w") as stdout, self._remarks.open("w") as stderr:
            self.process = subprocess.Popen(
                command("up", "--data", self.data, "--port", "0", *self._arguments),
                stdout=stdout,
                stderr=stderr,
                env=self._environment,
                cwd=self.data.parent,
                text=True,
            )

    def start(self, seconds: float = 90) -> "Up":
        """Start it and wait for the ready line."""
        self.spawn()
        assert self.process
        running = self.process

        def ready() -> bool:
            assert running.poll() is None, f"`up` ended {running.returncode}: {self.remarks()}"
            return self._out.read_text().endswith("\n")

        try:
            until(ready, seconds, "the ready line")
        except AssertionError as error:
            self.end()
            raise AssertionError(f"{error}\n{self.remarks()}") from None
        line = self._out.read_text()
        assert line.startswith(READY)
        assert line.count("\n") == 1
        self.url = line.removeprefix(READY).strip()
        return self

    def remarks(self) -> str:
        """What it said on stderr so far."""
        return self._remarks.read_text()

    def children(self) -> list[psutil.Process]:
        assert self.process
        return psutil.Process(self.process.pid).children(recursive=True)

    def named(self, word: str) -> list[psutil.Process]:
        """All processes below `up` whose program's name holds ``word``; one may end while its name is read."""
        found = []
        for child in self.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if word in child.name():
                    found.append(child)
        return found

    def child(self, *words: str) -> psutil.Process | None:
        """The first direct child whose command line holds all ``words``."""
        return next(iter(self.direct(*words)), None)

    def direct(self, *words: str) -> list[psutil.Process]:
        """The direct children whose command line holds all ``words``; one may end while it is read."""
        assert self.process
        found = []
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                line = child.cmdline()
                if all(any(part.endswith(word) for part in line) for word in words):
                    found.append(child)
        return found

    def send(self, sign: signal.Signals, seconds: float = 30) -> int:
        """Send a signal and wait for the end; the exit status."""
        assert self.process
        self.process.send_signal(sign)
        return self.process.wait(seconds)

    def end(self) -> None:
        """Stop however it takes."""
        if self.process is None or self.process.poll() is not None:
            return
        left = self.children()
        try:
            self.send(signal.SIGTERM)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for child in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()

    def api(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=10)

    def post(self, **fields: object) -> str:
        """Create a small job; its id."""
        body = {"type": "generate", "prompt": "a lighthouse", "width": 256, "height": 256, "steps": 4, **fields}
        with self.api() as api:
            answer = api.post("/v1/jobs", json=body)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def job(self, job_id: str) -> dict[str, Any]:
        with self.api() as api:
            answer = api.get(f"/v1/jobs/{job_id}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def wait_for(self, job_id: str, status: str = "succeeded", seconds: float = 60) -> dict[str, Any]:
        """Poll until the job has ended; it must have ended as ``status``."""

        def ended() -> dict[str, Any] | None:
            job = self._look(job_id)
            return job if job and job["finished_at"] else None

        job: dict[str, Any] = until(ended, seconds, f"the end of job {job_id}")
        assert job["status"] == status, job
        return job

    def until_completed(self, job_id: str, items: int) -> None:
        """Poll until so many of the job's items are done."""
        until(lambda: (self._look(job_id) or {"completed": 0})["completed"] >= items, what=f"{items} images")

    def _look(self, job_id: str) -> dict[str, Any] | None:
        """The job, or ``None`` while nobody can say: the API may be the one that was just killed."""
        try:
            return self.job(job_id)
        except (httpx.HTTPError, AssertionError):
            return None
