"""What the runner's tests share: specs, runner processes, and an ingest that commits to memory."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

from redis import Redis
from rq import Queue
from rq.exceptions import NoSuchJobError
from rq.job import Job
from rq.serializers import JSONSerializer

from dreamforge.events import EventBatch, LogWritten, RunnerEvent
from dreamforge.spec import Limits, ModelRef, RenderParams, RenderSpec
from dreamforge.transport import names
from dreamforge.transport.memory import MemoryEventSink

ROOT = Path(__file__).resolve().parents[2]
EventT = TypeVar("EventT")


def wait_for(condition: Callable[[], Any], seconds: float = 120.0, what: str = "") -> Any:
    """Poll until ``condition`` gives something true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"did not happen within {seconds} s: {what or condition}")


def make_spec(prompt: str = "fine", kind: str = "faulty", model_id: str = "m", **changes: Any) -> RenderSpec:
    params = {"width": 256, "height": 256, "steps": 3, **changes.pop("params", {})}
    return RenderSpec(
        job_id=changes.pop("job_id", None) or uuid4(),
        created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        correlation_id="corr",
        params=RenderParams(prompt=prompt, **params),
        model=ModelRef(id=model_id, name="A model", kind=kind, version="1"),
        limits=changes.pop("limits", Limits(grace_seconds=1)),
        **changes,
    )


class Ingest:
    """The other end of the events queue: commits each batch and writes the ack, as the worker does."""

    def __init__(self, url: str) -> None:
        self.sink = MemoryEventSink()
        self._redis = Redis.from_url(url)
        self._queue = Queue(names.EVENTS_QUEUE, connection=self._redis, serializer=JSONSerializer)
        self._seen: dict[UUID, list[str]] = {}
        self._leaving = threading.Event()
        self.paused = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def attempts(self, job_id: UUID) -> list[str]:
        return list(self._seen.get(job_id, []))

    def events(self, job_id: UUID) -> list[RunnerEvent]:
        return [event for attempt in self.attempts(job_id) for event in self.sink.committed(attempt)]

    def of(self, job_id: UUID, kind: type[EventT]) -> list[EventT]:
        return [event for event in self.events(job_id) if isinstance(event, kind)]

    def logs(self, job_id: UUID) -> dict[str, str]:
        return {event.code: event.message for event in self.of(job_id, LogWritten)}

    def __enter__(self) -> "Ingest":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._leaving.set()
        self._thread.join(5)
        self._redis.close()

    def _run(self) -> None:
        while not self._leaving.wait(0.01):
            if self.paused.is_set() or (job_id := self._redis.lpop(self._queue.key)) is None:
                continue
            assert isinstance(job_id, bytes)
            try:
                job = Job.fetch(job_id.decode(), connection=self._redis, serializer=JSONSerializer)
            except NoSuchJobError:
                continue  # wiped between the two reads; the runner sends the batch again
            batch = EventBatch.model_validate_json(job.args[0])
            self._redis.delete(job.key)  # RQ's own delete raises when the record was wiped in between
            known = self._seen.setdefault(batch.job_id, [])
            if batch.attempt_id not in known:
                known.append(batch.attempt_id)
            self.sink.send(batch)
            ack = self.sink.ack(batch.attempt_id)
            assert ack is not None
            self._redis.set(names.ack_key(batch.attempt_id), ack.model_dump_json(), ex=names.ACK_TTL_SECONDS)


class Runner:
    """A runner process, its folder and its log."""

    def __init__(self, home: Path, *arguments: str, redis_url: str | None = None, **settings: str) -> None:
        home.mkdir(exist_ok=True)
        self.home = home
        self.log_path = home / "runner.log"
        plugins = json.dumps({"faulty": "tests.integration.faulty_backend:FaultyBackend"})
        clean = {name: value for name, value in os.environ.items() if not name.startswith("DF_")}
        env = {**clean, "PYTHONPATH": str(ROOT), "DF_RUNNER_PLUGINS": plugins, **settings}
        if redis_url:
            env["DF_REDIS_URL"] = redis_url
        with self.log_path.open("ab") as log:
            command = [sys.executable, "-m", "dreamforge_runner", *arguments]
            self.process = subprocess.Popen(command, cwd=home, env=env, stdout=subprocess.PIPE, stderr=log)

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, *_: object) -> None:
        """Whatever the test found: a runner that is left takes the next test's jobs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=20)

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    @property
    def spools(self) -> list[Path]:
        return sorted((self.home / ".dreamforge" / "spool").glob("*/*.ndjson"))

    def wait_ready(self, seconds: float = 150.0) -> "Runner":
        try:
            wait_for(lambda: "runner is ready" in self.log, seconds, "runner is ready")
        except AssertionError:
            self.__exit__()  # nobody has entered the block yet that would end it
            raise
        return self

    def finish(self, seconds: float = 60) -> tuple[int, str]:
        out, _ = self.process.communicate(timeout=seconds)
        return self.process.returncode, out.decode()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.communicate(timeout=20)
        return self.process.returncode


def submit(redis_url: str, spec: RenderSpec) -> None:
    """As the local executor does."""
    client = Redis.from_url(redis_url)
    Queue(names.RENDER_QUEUE, connection=client, serializer=JSONSerializer).enqueue_call(
        names.RENDER_FUNCTION,
        args=(spec.model_dump_json(),),
        job_id=names.render_rq_id(spec.job_id),
        timeout=-1,
        result_ttl=0,
    )
    client.close()
