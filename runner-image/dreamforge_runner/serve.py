"""``serve``: a warm runner that takes specs from Redis, one after the other, until it is told to stop."""

import queue
import threading

from pydantic import ValidationError
from redis import RedisError

from dreamforge import telemetry
from dreamforge.crashpoints import CrashPoint, reach
from dreamforge.events import AttemptFinished, AttemptStarted, Outcome, Verdict
from dreamforge.spec import RenderSpec
from dreamforge.storage.base import Storage
from dreamforge.transport import names
from dreamforge.transport.redis import RedisEventSink, connect
from dreamforge_runner import faults, tasks
from dreamforge_runner.attempt import Inbox
from dreamforge_runner.backends import registry
from dreamforge_runner.ending import Halt
from dreamforge_runner.lease import Lease, release_of_the_dead
from dreamforge_runner.outbox import Outbox
from dreamforge_runner.settings import RunnerSettings
from dreamforge_runner.spool_home import LeftoverDrain, SpoolHome, draw_attempt_id, wait_all
from dreamforge_runner.supervisor import Supervisor, emit_without_nvml
from dreamforge_runner.work_queue import BLOCK_SECONDS, WorkQueue

log = telemetry.logger(__name__)

LEFTOVER_WAIT_SECONDS = 5.0
LAST_ACK_SECONDS = 2.0


class Server:
    """The process's parts; ``stop`` may be called from a signal handler."""

    def __init__(self, settings: RunnerSettings, storage: Storage) -> None:
        url = settings.require_redis()
        self._settings = settings
        self._redis = connect(url)
        self._sink = RedisEventSink(url)
        self._stopping = threading.Event()
        self._inbox: Inbox | None = None
        self._draining: list[tuple[Outbox, Lease]] = []
        self._supervisor = Supervisor(settings, storage, keep_child=True)
        self._home = SpoolHome(settings.spool_dir)
        # Blocking reads need a socket that waits longer than they do.
        blocking = connect(url, timeout_seconds=BLOCK_SECONDS + 5)
        self._work = WorkQueue(blocking, self._stopping, lambda: self._supervisor.prewarm(self._stopping))

    def stop(self) -> None:
        """End the job in hand as stopped and leave."""
        self._stopping.set()
        if (inbox := self._inbox) is not None:
            inbox.put(Halt(Outcome.STOPPED))

    def run(self) -> None:
        """Until stopped."""
        tasks.install(self.render)
        leftovers = LeftoverDrain(
            self._home, self._sink, lambda found: release_of_the_dead(self._redis, found.job_id, found.attempt_id)
        )
        try:
            self._supervisor.prewarm(self._stopping)
            if not leftovers.wait(LEFTOVER_WAIT_SECONDS):
                log.warning("events of earlier processes are still unsent; taking work meanwhile")
            log.info("runner is ready", queue=names.RENDER_QUEUE)
            self._work.work()
        finally:
            self._supervisor.close()
            self._leave(leftovers)

    def render(self, spec_text: str) -> None:
        """One delivery from the queue. Never raises: RQ would keep the failure where nobody looks."""
        try:
            spec = RenderSpec.model_validate_json(spec_text)
        except ValidationError as error:
            # The text of a validation error repeats its input.
            wrong = [
                ".".join(map(str, item["loc"])) for item in error.errors(include_input=False, include_context=False)
            ]
            log.error("a delivery is no render spec and is dropped", fields=wrong)
            return
        with telemetry.bound(job_id=spec.job_id, step=spec.step.value, correlation_id=spec.correlation_id):
            try:
                self._render(spec)
            except Exception:
                log.exception("delivery failed")

    def _render(self, spec: RenderSpec) -> None:
        attempt_id = draw_attempt_id()
        inbox: Inbox = queue.SimpleQueue()
        lease = Lease(self._redis, spec.job_id, attempt_id, lambda: inbox.put(Halt(Outcome.CANCELED)))
        if not lease.take():
            log.info("another attempt has the job; delivery dropped")
            return
        reach(CrashPoint.RUNNER_LEASE_TAKEN)
        with telemetry.bound(attempt=attempt_id):
            outbox = self._open_outbox(spec, attempt_id, inbox)
            self._inbox = inbox
            try:
                if self._stopping.is_set():
                    inbox.put(Halt(Outcome.STOPPED))
                if self._canceled(spec):
                    self._decline(spec, outbox)
                else:
                    self._supervisor.run(spec, outbox, inbox, lease.ours)
            finally:
                self._inbox = None
                self._drain_later(outbox, lease)

    def _open_outbox(self, spec: RenderSpec, attempt_id: str, inbox: Inbox) -> Outbox:
        def refused(_: Verdict) -> None:
            inbox.put(Halt(None))

        outbox = Outbox(self._home.open(spec, attempt_id), self._sink, on_refused=refused)
        outbox.start()
        return outbox

    def _canceled(self, spec: RenderSpec) -> bool:
        try:
            return bool(self._redis.exists(names.cancel_key(spec.job_id)))
        except RedisError:
            return False  # the lease's thread looks again

    def _decline(self, spec: RenderSpec, outbox: Outbox) -> None:
        """Canceled before it began: say so in events, in case nobody else did."""
        outbox.emit(AttemptStarted, backend=registry.name_of(spec.model.kind), runner=self._settings.name)
        emit_without_nvml(None, outbox, discarded=False)
        code = faults.exit_code(Outcome.CANCELED, None)
        outbox.emit(AttemptFinished, outcome=Outcome.CANCELED, exit_code=code, items_done=0)

    def _drain_later(self, outbox: Outbox, lease: Lease) -> None:
        """The next job may begin while this one's last events are on their way; the lease stays until they are."""

        def release() -> None:
            while not (outbox.wait_drained(1.0) or self._stopping.is_set()):
                pass
            if outbox.drained:
                lease.release()

        self._draining = [pair for pair in self._draining if not pair[0].drained]
        self._draining.append((outbox, lease))
        threading.Thread(target=release, name="lease-release", daemon=True).start()

    def _leave(self, leftovers: LeftoverDrain) -> None:
        leftovers.stop()
        outboxes = [outbox for outbox, _ in self._draining]
        if not wait_all(outboxes, LAST_ACK_SECONDS):
            log.warning("some events are unsent; they stay in the spool for the next start")
        for outbox, lease in self._draining:
            outbox.stop()
            lease.release()
        self._home.close()
        self._sink.close()
        self._redis.close()
