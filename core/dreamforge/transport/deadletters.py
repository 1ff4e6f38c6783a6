"""Batches of events that ingest refused for good: listed, put back, or dropped by a person.

They lie in RQ's failed registry of the ``events`` queue, with the reason, for ``DEAD_LETTER_SECONDS``. What a batch
holds may quote a prompt, so it is described here and never shown.
"""

import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import uuid4

from pydantic import ValidationError
from redis import Redis, RedisError
from rq import Queue
from rq.exceptions import NoSuchJobError
from rq.job import Job
from rq.registry import FailedJobRegistry
from rq.results import Result
from rq.serializers import JSONSerializer

from dreamforge.crashpoints import CrashPoint, reach
from dreamforge.events import BATCH, Ack, Verdict
from dreamforge.transport import names
from dreamforge.transport.base import TransportUnavailable
from dreamforge.transport.redis import DEAD_LETTER_SECONDS, connect

_LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class DeadBatch:
    """One refused batch; what could not be read out of it is ``None``."""

    id: str
    failed_at: datetime | None
    reason: str
    job_id: str | None = None
    attempt_id: str | None = None
    first_seq: int | None = None
    last_seq: int | None = None
    events: dict[str, int] | None = None


class Fate(StrEnum):
    """What became of a batch that was put back."""

    TAKEN = "taken"
    REFUSED_AGAIN = "refused_again"
    WAITING = "waiting"


@dataclass(frozen=True)
class Requeued:
    """``detail`` is ingest's verdict, or the reason of a new refusal, when there is one."""

    fate: Fate
    detail: str = ""


class DeadBatches:
    """The dead letters of one Redis. Every call raises ``TransportUnavailable`` when it is away."""

    def __init__(self, url: str) -> None:
        self._redis: Redis = connect(url)
        self._queue = Queue(names.EVENTS_QUEUE, connection=self._redis, serializer=JSONSerializer)
        self._registry = FailedJobRegistry(queue=self._queue)

    def list(self, limit: int) -> list[DeadBatch]:
        """The newest first. Entries whose message has expired are forgotten on the way."""
        try:
            newest = self._redis.zrevrange(self._registry.key, 0, limit - 1)
            found = []
            for rq_id in [raw.decode() for raw in newest if isinstance(raw, bytes)]:
                if (job := self._fetch(rq_id)) is None:
                    self._redis.zrem(self._registry.key, rq_id)
                else:
                    found.append(_described(job))
            return found
        except RedisError as error:
            raise _away(error) from error

    def get(self, rq_id: str) -> DeadBatch | None:
        """One dead batch; ``None`` when there is no such."""
        try:
            job = self._fetch(rq_id) if self._is_dead(rq_id) else None
        except RedisError as error:
            raise _away(error) from error
        return None if job is None else _described(job)

    def requeue(self, batch: DeadBatch, wait_seconds: float) -> Requeued | None:
        """Put a copy on the queue and see what becomes of it; ``None`` when the batch is no longer dead.

        The letter itself goes only when ingest has its events, so nothing that ends this call loses them. Ingest
        takes an event once however often it comes, so this never does harm.
        """
        try:
            dead = self._fetch(batch.id) if self._is_dead(batch.id) else None
            if dead is None:
                return None
            copy = self._copy_to_queue(dead)
            reach(CrashPoint.DLQ_BATCH_QUEUED)
            fate = self._fate(batch, copy, time.monotonic() + wait_seconds)
            if fate.fate is Fate.TAKEN:
                dead.delete()
            elif fate.fate is Fate.REFUSED_AGAIN:
                Result.create_failure(dead, DEAD_LETTER_SECONDS, fate.detail)
            return fate
        except RedisError as error:
            raise _away(error) from error

    def drop(self, rq_id: str) -> bool:
        """Forget it; whether it was there."""
        try:
            job = self._fetch(rq_id) if self._is_dead(rq_id) else None
            if job is None:
                return False
            job.delete()
        except RedisError as error:
            raise _away(error) from error
        return True

    def wake(self) -> None:
        """Have the control loop look at once. A hint: it looks anyway."""
        with suppress(RedisError):
            self._redis.publish(names.WAKE_CHANNEL, "")

    def close(self) -> None:
        """Give the connections back."""
        self._redis.close()

    def _copy_to_queue(self, dead: Job) -> Job:
        return self._queue.enqueue_call(
            str(dead.func_name),
            args=dead.args,
            job_id=uuid4().hex,
            description=dead.description,
            result_ttl=0,
            failure_ttl=DEAD_LETTER_SECONDS,
        )

    def _fate(self, batch: DeadBatch, copy: Job, until: float) -> Requeued:
        while True:
            if self._is_dead(copy.id):
                refused = self._fetch(copy.id)
                reason = _reason(refused) if refused else ""
                copy.delete()
                return Requeued(Fate.REFUSED_AGAIN, reason)
            if not self._redis.exists(Job.key_for(copy.id)):
                verdict = self._verdict(batch)
                if verdict == Verdict.GAP:  # it took the message and none of its events
                    return Requeued(Fate.REFUSED_AGAIN, "gap: an earlier batch of this attempt is missing")
                return Requeued(Fate.TAKEN, verdict)
            if time.monotonic() > until:
                return Requeued(Fate.WAITING)
            time.sleep(_LOOK_SECONDS)

    def _verdict(self, batch: DeadBatch) -> str:
        """Ingest's answer to the batch's attempt, which is about this batch: its runner has stopped sending."""
        text = self._redis.get(names.ack_key(batch.attempt_id)) if batch.attempt_id else None
        return Ack.model_validate_json(text).verdict.value if isinstance(text, bytes) else ""

    def _is_dead(self, rq_id: str) -> bool:
        return self._redis.zscore(self._registry.key, rq_id) is not None

    def _fetch(self, rq_id: str) -> Job | None:
        try:
            return Job.fetch(rq_id, connection=self._redis, serializer=JSONSerializer)
        except NoSuchJobError:
            return None


def _described(job: Job) -> DeadBatch:
    failed_at = job.ended_at.replace(tzinfo=UTC) if job.ended_at else None
    known: dict[str, Any] = {"id": job.id, "failed_at": failed_at, "reason": _reason(job)}
    try:
        batch = BATCH.validate_json(job.args[0])
    except (ValidationError, IndexError, TypeError):
        return DeadBatch(**known)  # not a batch: that is the reason it is here
    return DeadBatch(
        **known,
        job_id=str(batch.job_id),
        attempt_id=batch.attempt_id,
        first_seq=batch.events[0].seq,
        last_seq=batch.last_seq,
        events=dict(Counter(event.type for event in batch.events)),
    )


def _reason(job: Job) -> str:
    """The exception's own line out of the traceback that RQ kept."""
    result = job.latest_result()
    lines = (result.exc_string or "").splitlines() if result else []
    begins = [number for number, line in enumerate(lines) if line.startswith("Traceback ")]
    said = [line for line in lines[begins[-1] + 1 :] if line and not line.startswith(" ")] if begins else lines[-1:]
    return said[0].rpartition(".BadBatch: ")[2] if said else "no reason was kept"


def _away(error: RedisError) -> TransportUnavailable:
    return TransportUnavailable(f"Redis can't be reached ({type(error).__name__})")
