"""The runner's sign of life in Redis, and its ear for a cancel: one thread per attempt."""

import contextvars
import threading
import time
from collections.abc import Callable
from uuid import UUID

from redis import Redis, RedisError

from dreamforge import telemetry
from dreamforge.transport import names

log = telemetry.logger(__name__)

LOOK_SECONDS = 0.3


def release_of_the_dead(redis: Redis, job_id: UUID, attempt_id: str) -> None:
    """Let go for a process that is gone, so that its job need not wait for the lease to expire."""
    key = names.lease_key(job_id)
    try:
        if redis.get(key) == attempt_id.encode():
            redis.delete(key)
    except RedisError:
        pass  # it expires by itself


class Lease:
    """Held from before the first event until the last one is safe, so that no sweep takes the job for lost."""

    def __init__(self, redis: Redis, job_id: UUID, attempt_id: str, on_cancel: Callable[[], None]) -> None:
        self._redis = redis
        self._job_id = job_id
        self._attempt_id = attempt_id
        self._on_cancel = on_cancel
        self._leaving = threading.Event()
        self._canceled = False
        self._looked = time.monotonic()
        self._slept = False
        run = contextvars.copy_context().run  # its log lines name the job too
        self._thread = threading.Thread(target=run, args=(self._keep,), name="lease", daemon=True)

    def take(self) -> bool:
        """False when another live attempt has the job. A Redis that is away does not stop the work."""
        key = names.lease_key(self._job_id)
        try:
            taken = self._redis.set(key, self._attempt_id, nx=True, ex=names.LEASE_TTL_SECONDS)
        except RedisError as error:
            log.warning("no lease for now: Redis is not reachable", cause=type(error).__name__)
            taken = True
        if taken:
            self._looked = time.monotonic()
            self._thread.start()
        return bool(taken)

    def ours(self) -> bool:
        """False when another attempt took the job while this process stood still or was cut off. A Redis that is
        away proves nothing."""
        try:
            holder = self._holder()
        except RedisError:
            return True
        # Nobody has it now; but while this process stood still, somebody may have come and gone.
        return not self._stood_still() if holder is None else holder == self._attempt_id

    def release(self) -> None:
        """Let go, if it is still ours."""
        self._leaving.set()
        self._thread.join(10)
        try:
            if self._holder() == self._attempt_id:
                self._redis.delete(names.lease_key(self._job_id))
        except RedisError:
            pass  # it expires by itself

    def _keep(self) -> None:
        renew_at, reachable = 0.0, True
        while not self._leaving.wait(LOOK_SECONDS):
            self._slept = self._stood_still()
            self._looked = time.monotonic()
            try:
                if time.monotonic() >= renew_at:
                    renew_at = time.monotonic() + names.LEASE_RENEW_SECONDS
                    self._renew()
                if not self._canceled and self._redis.exists(names.cancel_key(self._job_id)):
                    self._canceled = True
                    self._on_cancel()
                reachable = True
            except RedisError as error:
                if reachable:
                    log.warning("lease waits: Redis is not reachable", cause=type(error).__name__)
                reachable = False

    def _renew(self) -> None:
        """Never over another attempt's lease: whoever has it now was told that we are gone."""
        if self.ours():
            self._redis.set(names.lease_key(self._job_id), self._attempt_id, ex=names.LEASE_TTL_SECONDS)

    def _stood_still(self) -> bool:
        """Whether this process was frozen for longer than a lease lives (Redis being away does not count)."""
        return self._slept or time.monotonic() - self._looked > names.LEASE_TTL_SECONDS

    def _holder(self) -> str | None:
        value = self._redis.get(names.lease_key(self._job_id))
        return value.decode() if isinstance(value, bytes) else None
