"""``once``: render one spec file, wait for the events to be safe, leave with the class's exit code."""

import json
import queue
import threading
import time
from pathlib import Path

from pydantic import ValidationError

from dreamforge import telemetry
from dreamforge.errors import FACTS, ErrorCode
from dreamforge.events import Failure, Outcome, Verdict
from dreamforge.spec import RenderSpec, Shard
from dreamforge.storage.base import Storage
from dreamforge.transport.base import EventSink
from dreamforge.transport.redis import RedisEventSink
from dreamforge.transport.stdout import StdoutEventSink
from dreamforge_runner.attempt import Inbox
from dreamforge_runner.ending import Halt
from dreamforge_runner.outbox import Outbox
from dreamforge_runner.settings import RunnerSettings
from dreamforge_runner.spool_home import LeftoverDrain, SpoolHome, draw_attempt_id
from dreamforge_runner.supervisor import Result, Supervisor

log = telemetry.logger(__name__)

_LAST_ACK_SECONDS = 2.0


class Once:
    """One attempt in a process of its own; ``stop`` may be called from a signal handler."""

    def __init__(self, settings: RunnerSettings, storage: Storage, sink: EventSink | None = None) -> None:
        self._settings = settings
        self._storage = storage
        self._sink: EventSink = sink or (
            RedisEventSink(settings.redis_url) if settings.redis_url else StdoutEventSink()
        )
        self._inbox: Inbox = queue.SimpleQueue()
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End the attempt as stopped; when it has ended already, wait no longer for its last ack."""
        self._stopping.set()
        self._inbox.put(Halt(Outcome.STOPPED))

    def run(self, path: Path) -> int:
        """The exit code."""
        spec = read_spec(path)
        shard = None if spec is None else shard_of(spec.shard, self._settings.completion_index)
        if spec is None or shard is None:
            refused = FACTS[ErrorCode.INVALID_INPUT].exit_code or 1
            failure = Failure(code=ErrorCode.INVALID_INPUT, message="the spec file is no render spec")
            self._write_verdict(Result(Outcome.FAILED, refused, 0, 0, failure, None))
            return refused
        spec = spec.model_copy(update={"shard": shard})
        with telemetry.bound(job_id=spec.job_id, step=spec.step.value, correlation_id=spec.correlation_id):
            return self._run(spec)

    def _run(self, spec: RenderSpec) -> int:
        home = SpoolHome(self._settings.spool_dir)
        leftovers = LeftoverDrain(home, self._sink)
        outbox = Outbox(
            home.open(spec, self._settings.attempt_id or draw_attempt_id()), self._sink, on_refused=self._refused
        )
        outbox.start()
        supervisor = Supervisor(self._settings, self._storage, keep_child=False)
        try:
            result = supervisor.run(spec, outbox, self._inbox)
        finally:
            supervisor.close()
        self._write_verdict(result)
        if not self._wait_drained(outbox):
            log.warning("events are not known to be safe; they stay in the spool", spool=str(home.path))
        leftovers.stop()
        outbox.stop()
        home.close()
        return result.exit_code

    def _wait_drained(self, outbox: Outbox) -> bool:
        """Bounded; once told to stop, only as long as a healthy transport needs."""
        deadline = time.monotonic() + self._settings.ack_timeout_seconds
        while not outbox.wait_drained(0.1):
            if self._stopping.is_set():
                deadline = min(deadline, time.monotonic() + _LAST_ACK_SECONDS)
                return outbox.wait_drained(max(0.0, deadline - time.monotonic()))
            if time.monotonic() >= deadline:
                return False
        return True

    def _refused(self, _: Verdict) -> None:
        self._inbox.put(Halt(None))

    def _write_verdict(self, result: Result) -> None:
        """The pod's termination message: codes and counters, no text that a user gave."""
        if self._settings.termination_log is None:
            return
        gpu = result.gpu
        manifest = {"manifest_sha256": result.manifest_sha256} if result.manifest_sha256 else {}
        verdict = {
            "v": 1,
            "class": result.failure.code.value if result.failure else None,
            "exit_code": result.exit_code,
            "items_done": result.items_done,
            "items_failed": result.items_failed,
            "vram_mib": {"start": gpu.start_mib, "peak": gpu.peak_mib, "end": gpu.end_mib} if gpu else None,
            "clean": gpu.clean if gpu else None,
            **manifest,
        }
        try:
            self._settings.termination_log.write_text(json.dumps(verdict))
        except OSError as error:
            log.warning("the termination message can't be written", error=error.strerror)


def shard_of(shard: Shard, index: int | None) -> Shard | None:
    """The shard a pod renders: all pods of an Indexed Job read one spec. ``None``, with a log line: no such shard."""
    if index is None:
        return shard
    if index >= shard.count:
        log.error("the spec has no such shard", index=index, shards=shard.count)
        return None
    return Shard(index=index, count=shard.count)


def read_spec(path: Path) -> RenderSpec | None:
    """The spec in a file; ``None``, with a log line that names the wrong fields, when it is none."""
    try:
        return RenderSpec.model_validate_json(path.read_bytes())
    except OSError as error:
        log.error("the spec file can't be read", path=str(path), error=error.strerror)
    except ValidationError as error:
        # The text of a validation error repeats its input.
        wrong = [".".join(map(str, item["loc"])) for item in error.errors(include_input=False, include_context=False)]
        log.error("the spec file is no render spec", path=str(path), fields=wrong)
    return None
