"""Takes render jobs off the RQ queue, one at a time, in this process and thread.

RQ's own loop quits when Redis goes away and talks to Redis from a signal handler; this one waits for Redis to come
back and is stopped by an event. What RQ does for one job (registries, execution records, results) stays RQ's.
"""

import logging
import threading
from collections.abc import Callable
from typing import Any

from redis import Redis, RedisError
from rq import Queue, SimpleWorker
from rq.exceptions import DequeueTimeout
from rq.intermediate_queue import IntermediateQueue
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.timeouts import BaseDeathPenalty

from dreamforge import telemetry
from dreamforge.transport import names

log = telemetry.logger(__name__)

BLOCK_SECONDS = 1
_RETRY_SECONDS = 0.5
_RETRY_MAX_SECONDS = 5.0


class _NoDeathPenalty(BaseDeathPenalty):
    """RQ's alarm would interrupt the supervisor; the spec's own limits bound a job."""

    def setup_death_penalty(self) -> None:
        """Nothing to set up."""

    def cancel_death_penalty(self) -> None:
        """Nothing to cancel."""


class _Worker(SimpleWorker):
    death_penalty_class = _NoDeathPenalty


class WorkQueue:
    """The ``render`` queue as seen by one runner process."""

    def __init__(self, redis: Redis, stopping: threading.Event) -> None:
        self._redis = redis
        self._stopping = stopping
        self._queue = Queue(names.RENDER_QUEUE, connection=redis, serializer=JSONSerializer)
        self._performed: set[str] = set()

    def work(self) -> None:
        """Until told to stop."""
        worker: Any = None
        wait = _RETRY_SECONDS
        while not self._stopping.is_set():
            try:
                if worker is None:
                    worker = self._enlist()
                self._tidy()
                worker.heartbeat()
                if (job := self._next()) is not None:
                    self._perform(worker, job)
                wait = _RETRY_SECONDS
            except RedisError as error:
                log.warning("no work: Redis is not reachable", cause=type(error).__name__, retry_seconds=wait)
                self._stopping.wait(wait)
                wait = min(wait * 2, _RETRY_MAX_SECONDS)
        if worker is not None:
            _quietly(worker.register_death)

    def _enlist(self) -> Any:
        self._recover()
        logging.getLogger("rq.worker").setLevel(logging.WARNING)  # RQ sets it itself; our own lines say it all
        worker: Any = _Worker(
            [self._queue], connection=self._redis, serializer=JSONSerializer, log_job_description=False
        )
        worker.register_birth()
        return worker

    def _recover(self) -> None:
        """Put back what a killed runner had popped and not begun; RQ would fail it. The lease sorts out doubles."""
        between = IntermediateQueue(self._queue.key, self._redis)
        for job_id in between.get_job_ids():
            if job_id in self._queue.started_job_registry:
                continue
            if self._queue.fetch_job(job_id) is not None:
                self._redis.lpush(self._queue.key, job_id)
            between.remove(job_id)

    def _next(self) -> Job | None:
        try:
            found = Queue.dequeue_any([self._queue], BLOCK_SECONDS, self._redis, serializer=JSONSerializer)
        except DequeueTimeout:
            return None
        return found[0] if found else None

    def _perform(self, worker: Any, job: Job) -> None:
        if self._stopping.is_set():
            self._redis.lpush(self._queue.key, job.id)
            IntermediateQueue(self._queue.key, self._redis).remove(job.id)
            return
        self._performed.add(job.id)
        worker.execute_job(job, self._queue)
        self._tidy()

    def _tidy(self) -> None:
        """Remove what RQ leaves of a job when Redis went away or was emptied under it.

        A half record would stay for ever, a whole one would look like a job in progress. One that is queued again
        meanwhile is a new submission.
        """
        for job_id in list(self._performed):
            key = Job.key_for(job_id)
            status, data = self._redis.hmget(key, ["status", "data"])
            if data is None or status != b"queued":
                self._redis.delete(key)
                self._redis.zrem(self._queue.failed_job_registry.key, job_id)
            self._performed.discard(job_id)


def _quietly(call: Callable[[], object]) -> None:
    try:
        call()
    except RedisError as error:
        log.debug("Redis was not told", cause=type(error).__name__)
