"""The ingest side of the queue: an RQ worker without forks that survives Redis going away."""

import threading
import time
from contextlib import suppress
from itertools import groupby
from types import FrameType

from redis import Redis
from redis.exceptions import RedisError
from rq import Queue, SimpleWorker
from rq.exceptions import StopRequested
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.timeouts import TimerDeathPenalty

from dreamforge import telemetry
from dreamforge.crashpoints import CrashPoint, reach
from dreamforge.transport import names
from dreamforge_api.worker import tasks

log = telemetry.logger("ingest")
_RECONNECT_SECONDS = 1.0
#: RQ's idle poll and its own housekeeping; recovery never depends on them, see the control loop's sweep.
_TTL_SECONDS = 30
_MAINTENANCE_SECONDS = 60
#: RQ's heartbeat must not wait longer than this for a run of batches.
_RUN_SECONDS = 5.0
#: Messages taken together; bounds the events of one transaction to a few thousand.
_TOGETHER = 8


class IngestWorker(SimpleWorker):
    """Runs batches one after another in this process; signals belong to the process, not to RQ."""

    # SIGALRM works in the main thread only, and a batch has the statement timeout as its bound.
    death_penalty_class = TimerDeathPenalty
    max_connection_wait_time = 2.0
    _busy = False

    def _install_signal_handlers(self) -> None:
        return

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Commit this batch, together with what waits already.

        RQ's loop and bookkeeping cost more round trips than a commit, so they are paid once for a run of batches; and
        batches that follow one another become one transaction, so a backlog drains faster than it grew.
        """
        until = time.monotonic() + _RUN_SECONDS
        self._busy = True
        try:
            waiting = [job, *self._take(queue, _TOGETHER - 1)]
            while waiting:
                self._ingest(waiting, queue)
                if self._stop_requested or time.monotonic() > until:
                    return
                waiting = self._take(queue, _TOGETHER)
        finally:
            self._busy = False

    def _take(self, queue: Queue, limit: int) -> list[Job]:
        """What waits, up to ``limit`` messages, without waiting for more."""
        taken: list[Job] = []
        while len(taken) < limit:
            found = Queue.dequeue_any([queue], None, connection=self.connection, serializer=JSONSerializer)
            if found is None:
                break
            taken.append(found[0])
        return taken

    def clean_registries(self) -> None:
        """First of all, what a killed worker had in hand goes back to the head of the queue.

        Ingest may repeat anything, so it does no harm if that worker lives after all. RQ would file these messages
        with the dead letters after a minute, although nothing is wrong with them.
        """
        for queue in self.queues:
            while self.connection.rpoplpush(queue.intermediate_queue_key, queue.key) is not None:
                continue
        super().clean_registries()  # type: ignore[no-untyped-call]  # RQ's

    def stop_soon(self) -> None:
        """From a signal handler: leave RQ's blocking wait now, or after the batch in hand."""
        self._stop_requested = True
        if not self._busy:
            raise StopRequested

    def _ingest(self, waiting: list[Job], queue: Queue) -> None:
        try:
            for function, messages in groupby(waiting, key=lambda job: job.func_name):
                tasks.take(function, [job.args[0] for job in messages])
        except Exception:
            if self._stop_requested:
                # Nothing needs to be wrong with them: whoever is told to stop waits for no database. They stay in
                # hand, and the next worker takes them as it does a killed one's.
                log.warning("batches are left to the next worker", messages=len(waiting))
                return
            log.exception("batches can't be ingested together", messages=len(waiting))
            self._ingest_singly(waiting, queue)
            return
        reach(CrashPoint.INGEST_ACKED)
        with self.connection.pipeline(transaction=False) as pipe:
            for job in waiting:
                pipe.lrem(queue.intermediate_queue_key, 1, job.id)
                pipe.delete(job.key)
            pipe.execute()

    def _ingest_singly(self, waiting: list[Job], queue: Queue) -> None:
        """RQ's own way (ingest may repeat anything): what fails again is filed, with its reason, with the dead
        letters; what does not is committed. A stop leaves the rest to the next worker."""
        for job in waiting:
            if self._stop_requested:
                return
            super().execute_job(job, queue)


class IngestQueue:
    """Works the events queue in the main thread until told to stop; a batch in hand is finished first."""

    def __init__(self, redis: Redis, stop: threading.Event) -> None:
        self._redis = redis
        self._stop = stop
        self._working: IngestWorker | None = None

    def run(self) -> None:
        """Return once ``stop`` is set, however often Redis goes away until then."""
        with suppress(StopRequested):
            while not self._stop.is_set():
                self._work()
                self._stop.wait(_RECONNECT_SECONDS)

    def _work(self) -> None:
        try:
            self._working = self._worker()
            if not self._stop.is_set():  # else the signal came before there was anyone to wake
                self._working.work(logging_level="WARNING")
        except RedisError as error:
            log.warning("Redis is away; ingest waits", error=str(error))
        finally:
            self._working = None

    def on_signal(self, signum: int, frame: FrameType | None) -> None:
        """Signal handler: wakes RQ from its blocking wait, or lets it finish the batch in hand."""
        self._stop.set()
        if self._working is not None:
            self._working.stop_soon()

    def _worker(self) -> IngestWorker:
        queue = Queue(names.EVENTS_QUEUE, connection=self._redis, serializer=JSONSerializer)
        return IngestWorker(
            [queue],
            connection=self._redis,
            serializer=JSONSerializer,
            worker_ttl=_TTL_SECONDS,
            maintenance_interval=_MAINTENANCE_SECONDS,
            log_job_description=False,
        )
