"""The API as a real process on a loopback port, and events written the way ingest writes them."""

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self
from uuid import UUID

import httpx
import redis
from sqlalchemy import Engine, text

from dreamforge.db import events, jobs
from dreamforge.jobs import JobState
from dreamforge.transport import names

SIGNING_KEY = "a-signing-key-for-tests"
READY_WITHIN = 120.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Api:
    """``with Api(folder, DF_DATABASE_URL=..., ...) as api``: started, answering; ended by SIGTERM."""

    def __init__(self, folder: Path, database_url: str, redis_url: str, **settings: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.store_root = folder / f"objects-{secrets.token_hex(4)}"
        self.log = folder / f"api-{self.port}.log"
        self.client = httpx.Client(base_url=self.url, timeout=20)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("DF_")}
        self._environment = inherited | {
            "DF_DATABASE_URL": database_url,
            "DF_REDIS_URL": redis_url,
            "DF_API_PORT": str(self.port),
            "DF_STORE_ROOT": str(self.store_root),
            "DF_SIGNING_KEY": SIGNING_KEY,
            **settings,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dreamforge_api"], env=self._environment, cwd=self.folder, stderr=log
            )
        poll(self._answers, "the API to answer", READY_WITHIN)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.client.close()

    def stop(self) -> float:
        """SIGTERM; gives the seconds it took to end."""
        assert self.process is not None
        began = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        return time.monotonic() - began

    def create(self, **body: Any) -> dict[str, Any]:
        """A new job's resource."""
        answer = self.client.post("/v1/jobs", json={"prompt": "a lighthouse", **body})
        assert answer.status_code == 202, answer.text
        made: dict[str, Any] = answer.json()
        return made

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.client.get("/healthz").status_code == 200
        except httpx.TransportError:
            return False


def poll(condition: Any, what: str, seconds: float = 60.0) -> Any:
    """Wait for ``condition()`` to be true; gives its value."""
    deadline = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.02)


class Recorder:
    """Writes events of a job under its row's lock, as ingest does, and announces them when there is a Redis."""

    def __init__(self, engine: Engine, redis_url: str | None = None) -> None:
        self._engine = engine
        self._redis = redis.Redis.from_url(redis_url) if redis_url else None

    def append(self, job_id: str, *given: dict[str, Any]) -> int:
        """Append events; gives the last ``seq``."""
        with self._engine.begin() as connection:
            row = connection.execute(
                text("UPDATE jobs SET last_seq = last_seq + :n WHERE id = :id RETURNING last_seq"),
                {"n": len(given), "id": job_id},
            ).one()
            first = row.last_seq - len(given) + 1
            rows = [_row(first + offset, event) for offset, event in enumerate(given)]
            connection.execute(events.APPEND, {"job_id": UUID(job_id), "step": "generate", "rows": json.dumps(rows)})
        self.announce(job_id, row.last_seq)
        return int(row.last_seq)

    def announce(self, job_id: str, seq: int) -> None:
        if self._redis is not None:
            self._redis.publish(names.EVENTS_CHANNEL, f"{job_id} {seq}")

    def run(self, job_id: str) -> int:
        """The job becomes running, with its event."""
        with self._engine.begin() as connection:
            connection.execute(
                text("UPDATE jobs SET status = 'running', started_at = now(), attempt = 1 WHERE id = :id"),
                {"id": job_id},
            )
        return self.append(job_id, state("running", "queued"))

    def finish(self, job_id: str, target: JobState = JobState.CANCELED, error: dict[str, Any] | None = None) -> int:
        parameters = jobs.finish_parameters(UUID(job_id), target, "generate", error=error)
        with self._engine.begin() as connection:
            seq = int(connection.execute(jobs.FINISH, parameters).scalar_one())
        self.announce(job_id, seq)
        return seq

    def close(self) -> None:
        if self._redis is not None:
            self._redis.close()


def _row(seq: int, event: dict[str, Any]) -> dict[str, Any]:
    defaults = {
        "seq": seq,
        "ts": datetime.now(UTC).isoformat(),
        "item_index": None,
        "attempt": 1,
        "attempt_id": None,
        "producer_seq": None,
        "level": "info",
        "code": event["type"],
        "message": event["type"],
        "payload": {},
    }
    return defaults | event


def state(status: str, previous: str) -> dict[str, Any]:
    return {"type": "state", "payload": {"status": status, "previous": previous, "attempt": 1}}


def progress(item: int, done: float) -> dict[str, Any]:
    payload = {"progress": done, "item_progress": done, "stage": "denoising", "step_index": 1, "steps_total": 2}
    return {"type": "progress", "item_index": item, "payload": payload}


def log(message: str) -> dict[str, Any]:
    return {"type": "log", "code": "note", "message": message}


def sse(client: httpx.Client, path: str, **headers: str) -> Generator[dict[str, Any], None, None]:
    """Events of a stream as ``{"id", "event", "data"}`` until it closes; comments come as ``{"comment": ...}``."""
    with client.stream("GET", path, headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield from parse_sse(answer.iter_lines())


def parse_sse(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    found: dict[str, Any] = {}
    for line in lines:
        if not line:
            if found:
                yield found
            found = {}
            continue
        name, _, value = line.partition(":")
        found[name or "comment"] = value.removeprefix(" ")
        if name == "data":
            with contextlib.suppress(ValueError):
                found["data"] = json.loads(found["data"])
