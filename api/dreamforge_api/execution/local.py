"""Runs jobs on this machine: hands the spec to runner processes through the RQ queue ``render``.

The runners are processes of their own (``python -m dreamforge_runner serve``, one for each slot), so a worker
that dies takes no render with it. A runner proves that it lives by renewing a lease key for the job; RQ's own
registries are not trusted for that (their repair times are minutes).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from redis import Redis
from redis.exceptions import RedisError
from rq import Queue
from rq.exceptions import InvalidJobOperation, NoSuchJobError
from rq.job import Job
from rq.serializers import JSONSerializer

from dreamforge.spec import RenderSpec
from dreamforge.transport import names
from dreamforge_api.execution.base import Liveness, Unreachable

_CANCEL_KEPT_SECONDS = 3600


@contextmanager
def _redis_errors() -> Iterator[None]:
    try:
        yield
    except RedisError as error:
        raise Unreachable(f"Redis can't be reached: {error}") from error


class LocalExecutor:
    """The executor of a machine without a cluster."""

    kind = "local"
    retries_itself = False

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis
        self._queue = Queue(names.RENDER_QUEUE, connection=redis, serializer=JSONSerializer)

    def submit(self, spec: RenderSpec) -> str:
        rq_id = names.render_rq_id(spec.job_id)
        with _redis_errors():
            if self.liveness(spec.job_id, rq_id) in (Liveness.WAITING, Liveness.ALIVE):
                return rq_id
            stale = self._fetch(rq_id)
            if stale is not None:
                self._forget(stale)
            self._redis.delete(names.cancel_key(spec.job_id))
            self._queue.enqueue_call(
                names.RENDER_FUNCTION,
                args=(spec.model_dump_json(),),
                job_id=rq_id,
                timeout=-1,
                result_ttl=0,
                description=rq_id,
            )
        return rq_id

    def cancel(self, job_id: UUID, ref: str | None) -> None:
        with _redis_errors():
            # The key first: a runner that takes the job in between sees it before it starts.
            self._redis.set(names.cancel_key(job_id), "1", ex=_CANCEL_KEPT_SECONDS)
            rq_id = names.render_rq_id(job_id)
            waiting = self._fetch(rq_id)
            if waiting is not None and self._is_waiting(rq_id):
                self._forget(waiting)

    def liveness(self, job_id: UUID, ref: str | None) -> Liveness:
        with _redis_errors():
            if self._redis.exists(names.lease_key(job_id)):
                return Liveness.ALIVE
            rq_id = names.render_rq_id(job_id)
            if self._is_waiting(rq_id):
                return Liveness.WAITING
            return Liveness.ABSENT if self._fetch(rq_id) is None else Liveness.GONE

    def release(self, job_id: UUID, ref: str | None) -> bool:
        return True  # nothing is kept but what a runner removes

    def _forget(self, job: Job) -> None:
        """Take a message out of the queue and RQ's registries."""
        try:
            job.delete()
        except InvalidJobOperation:
            # A Redis that lost everything and was written to again keeps half a record, which RQ can't delete.
            self._redis.lrem(self._queue.key, 0, job.id)
            self._redis.delete(job.key)

    def _is_waiting(self, rq_id: str) -> bool:
        return self._redis.lpos(self._queue.key, rq_id) is not None

    def _fetch(self, rq_id: str) -> Job | None:
        try:
            return Job.fetch(rq_id, connection=self._redis, serializer=JSONSerializer)
        except NoSuchJobError:
            return None
