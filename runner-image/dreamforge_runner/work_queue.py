"""Takes render jobs off the RQ queue, one at a time, in this process and thread.

RQ's own loop quits when Redis goes away and talks to Redis from a signal handler; this one waits for Redis to come
back and is stopped by an event. What RQ does for one job (registries, execution records, results) stays RQ's.
"""

import json
import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from redis import Redis, RedisError
from rq import Queue, SimpleWorker
from rq.exceptions import DequeueTimeout, DeserializationError
from rq.intermediate_queue import IntermediateQueue
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.timeouts import BaseDeathPenalty

from dreamforge import telemetry
from dreamforge.transport import names
from dreamforge_runner import affinity
from dreamforge_runner.affinity import Waiting

log = telemetry.logger(__name__)

BLOCK_SECONDS = 1
_RETRY_SECONDS = 0.5
_RETRY_MAX_SECONDS = 5.0
#: A job that another runner took meanwhile is not put back.
_TO_FRONT = """
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 1 then redis.call('LPUSH', KEYS[1], ARGV[1]) end
"""


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

    def __init__(self, redis: Redis, stopping: threading.Event, on_idle: Callable[[], object]) -> None:
        self._redis = redis
        self._stopping = stopping
        self._on_idle = on_idle
        self._queue = Queue(names.RENDER_QUEUE, connection=redis, serializer=JSONSerializer)
        self._performed: set[str] = set()
        self._loaded: str | None = None  # the model of the job before

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
                else:
                    self._on_idle()
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
        self._bring_forward()
        try:
            found = Queue.dequeue_any([self._queue], BLOCK_SECONDS, self._redis, serializer=JSONSerializer)
        except DequeueTimeout:
            return None
        return found[0] if found else None

    def _bring_forward(self) -> None:
        """Move a job that needs the loaded model to the front, where ``affinity`` allows; RQ then takes the first."""
        if self._loaded is None:
            return
        near: Any = self._redis.lrange(self._queue.key, 0, affinity.LOOK_AHEAD - 1)
        if len(near) < 2:
            return
        ids = [job_id.decode() for job_id in near]
        jobs = Job.fetch_many(ids, connection=self._redis, serializer=JSONSerializer)
        waiting = [_waiting(job_id, job) for job_id, job in zip(ids, jobs, strict=True)]
        if place := affinity.choose(waiting, self._loaded):
            self._redis.eval(_TO_FRONT, 1, self._queue.key, ids[place])

    def _perform(self, worker: Any, job: Job) -> None:
        if self._stopping.is_set():
            self._redis.lpush(self._queue.key, job.id)
            IntermediateQueue(self._queue.key, self._redis).remove(job.id)
            return
        self._performed.add(job.id)
        self._loaded = _model_of(job)
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


def _waiting(job_id: str, job: Job | None) -> Waiting:
    if job is None or job.enqueued_at is None:
        return Waiting(job_id, None, 0.0)
    return Waiting(job_id, _model_of(job), (datetime.now(UTC) - job.enqueued_at.replace(tzinfo=UTC)).total_seconds())


def _model_of(job: Job) -> str | None:
    """What the job needs loaded; ``None`` for a message that is no render spec, which the server will say."""
    try:
        model = json.loads(job.args[0])["model"]
        return f"{model['kind']} {model.get('folder_path') or model.get('path') or model['id']}"
    except (ValueError, LookupError, TypeError, DeserializationError):
        return None


def _quietly(call: Callable[[], object]) -> None:
    try:
        call()
    except RedisError as error:
        log.debug("Redis was not told", cause=type(error).__name__)
