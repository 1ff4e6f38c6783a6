"""The real runner (``serve``) with the tiny SDXL checkpoint: give it jobs, see when their steps happen."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer

from benchmarks import traced_sdxl
from benchmarks.processes import Program, program
from benchmarks.stack import Servers
from dreamforge.db.engine import open_engine
from dreamforge.spec import ModelRef, RenderParams, RenderSpec
from dreamforge.transport import names
from dreamforge_api.execution.local import LocalExecutor
from dreamforge_api.worker import tasks
from dreamforge_api.worker.queue import IngestWorker
from dreamforge_api.worker.retry import RetryPolicy
from dreamforge_api.worker.signals import Signals
from tests import tiny_sdxl
from tests.jobs import create, rows

_PATIENCE_SECONDS = 120.0
Trace = list[dict[str, Any]]


class Desk:
    """Hands jobs to the runner as the control loop does, and commits its events as the worker does."""

    def __init__(self, servers: Servers) -> None:
        self._engine = open_engine(servers.database_url)
        self._redis = Redis.from_url(servers.redis_url)
        self._executor = LocalExecutor(self._redis)
        self._queue = Queue(names.EVENTS_QUEUE, connection=self._redis, serializer=JSONSerializer)
        self._checkpoint = tiny_sdxl.cached().checkpoint
        tasks.install(tasks.Ingestor(self._engine, Signals(self._redis), RetryPolicy(), threading.Event()))

    def submit(self, *, kind: str, count: int, steps: int) -> UUID:
        """Dispatch one job; 256 x 256 pixels, the smallest there is."""
        params = RenderParams(prompt="a lighthouse", width=256, height=256, steps=steps, count=count)
        job_id = create(self._engine, **params.model_dump(include={"width", "height", "steps", "count"}))
        model = ModelRef(id="tiny", name="tiny", kind=kind, version="1", path=str(self._checkpoint))
        spec = RenderSpec(
            job_id=job_id,
            created_at=datetime.now(UTC),
            correlation_id="bench",
            params=params,
            model=model,
        )
        self._executor.submit(spec)
        return job_id

    def settle(self, job_id: UUID) -> None:
        """Commit events until the job has ended; it must have succeeded."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            self._worker().work(logging_level="WARNING", burst=True)
            job = rows(self._engine, "SELECT status, error_message FROM jobs WHERE id = :id", id=job_id)[0]
            if job["status"] == "succeeded":
                return
            if job["status"] not in ("queued", "running") or time.monotonic() > deadline:
                raise RuntimeError(f"the job is {job['status']}: {job['error_message']}")
            time.sleep(0.05)

    def close(self) -> None:
        self._redis.close()
        self._engine.dispose()

    def _worker(self) -> IngestWorker:
        return IngestWorker(
            [self._queue], connection=self._redis, serializer=JSONSerializer, log_job_description=False
        )


class Runner:
    """One runner process and its trace."""

    def __init__(self, running: Program, desk: Desk, trace: Path) -> None:
        self._program = running
        self._desk = desk
        self._trace = trace
        self._read = 0

    def render(self, *, kind: str = traced_sdxl.KIND, count: int = 1, steps: int = 4) -> tuple[float, Trace]:
        """When the job was dispatched, and the trace of its items. The job has ended when this returns."""
        dispatched = time.monotonic()
        return dispatched, self.await_trace(self._desk.submit(kind=kind, count=count, steps=steps), count)

    def await_trace(self, job_id: UUID, count: int) -> Trace:
        """The trace of a job's ``count`` items. Nothing is asked of the machine while they are rendered."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        lines: list[str] = []
        while len(lines) < self._read + count:
            self._program.check()
            if time.monotonic() > deadline:
                raise RuntimeError(f"the runner does not render: {self._program.log.read_text()[-2000:]}")
            time.sleep(0.02)
            lines = self._trace.read_text().splitlines() if self._trace.exists() else []
        self._desk.settle(job_id)
        found = [json.loads(line) for line in lines[self._read :]]
        self._read = len(lines)
        return found


@contextmanager
def desk(servers: Servers) -> Iterator[Desk]:
    """A :class:`Desk` for the length of the block."""
    made = Desk(servers)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def fresh_runner(servers: Servers, at: Desk) -> Iterator[Runner]:
    """A runner process that has imported nothing yet."""
    folder = servers.folder / f"runner-{time.monotonic_ns()}"
    plugins = {
        traced_sdxl.KIND: traced_sdxl.TARGET,
        traced_sdxl.COMPARED_KIND: traced_sdxl.COMPARED_TARGET,
    }
    environment = {
        "DF_REDIS_URL": servers.redis_url,
        "DF_RUNNER_PLUGINS": json.dumps(plugins),
        "DF_SPOOL_DIR": "spool",
        "DF_CACHE_DIR": "cache",
        "DF_STORE_ROOT": str(servers.folder / "objects"),
        "DF_LOG_LEVEL": "INFO",
    }
    with program("runner", ["dreamforge_runner", "serve"], folder, environment) as running:
        yield Runner(running, at, folder / traced_sdxl.TRACE)
