"""Redis as the pipe: one RQ job per batch of events, acks read from a key."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Final
from uuid import uuid4

from pydantic import ValidationError
from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry
from rq import Queue
from rq.serializers import JSONSerializer

from dreamforge.announcements import Announcement, Answer
from dreamforge.events import Ack, EventBatch
from dreamforge.transport import names
from dreamforge.transport.base import TransportUnavailable

#: A batch that ingest gave up on stays in RQ's failed registry (the dead-letter queue) this long.
DEAD_LETTER_SECONDS: Final = 30 * 24 * 3600
_TIMEOUT_SECONDS: Final = 2.0


def connect(url: str, *, timeout_seconds: float = _TIMEOUT_SECONDS) -> Redis:
    """A client that answers or raises within about two ``timeout_seconds``; connects at the first command.

    redis-py's own default is three retries with seconds of backoff between them: too long for a caller that
    must say 503, and for a sender thread that has its own idea of when to try again.
    """
    return Redis.from_url(
        url,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=min(timeout_seconds, _TIMEOUT_SECONDS),
        health_check_interval=15,
        retry=Retry(NoBackoff(), 1),
        client_name="dreamforge",
    )


class RedisEventSink:
    """The :class:`~dreamforge.transport.base.EventSink` of every real installation."""

    def __init__(self, url: str) -> None:
        self._redis = connect(url)
        self._queue = Queue(names.EVENTS_QUEUE, connection=self._redis, serializer=JSONSerializer)

    def send(self, batch: EventBatch) -> None:
        try:
            self._queue.enqueue_call(
                names.INGEST_FUNCTION,
                args=(batch.model_dump_json(),),
                job_id=uuid4().hex,
                # RQ's own description would repeat the arguments, prompts and all, in its logs.
                description=f"events {batch.attempt_id} {batch.prev_seq + 1}-{batch.last_seq}",
                result_ttl=0,
                failure_ttl=DEAD_LETTER_SECONDS,
            )
        except RedisError as error:
            raise TransportUnavailable(f"Redis can't take events now ({type(error).__name__})") from error

    def ack(self, attempt_id: str) -> Ack | None:
        try:
            text = self._redis.get(names.ack_key(attempt_id))
        except RedisError as error:
            raise TransportUnavailable(f"Redis can't be asked for acks now ({type(error).__name__})") from error
        if not isinstance(text, bytes | str):
            return None
        try:
            return Ack.model_validate_json(text)
        except ValidationError:
            return None  # written by another version; the runner sends again and a newer ack replaces it

    def close(self) -> None:
        """Give the connections back."""
        self._redis.close()


class RedisAnnouncements:
    """The :class:`~dreamforge.transport.base.AnnouncementSink` of every real installation."""

    def __init__(self, url: str) -> None:
        self._redis = connect(url)
        self._queue = Queue(names.EVENTS_QUEUE, connection=self._redis, serializer=JSONSerializer)

    def announce(self, announcement: Announcement) -> None:
        try:
            self._queue.enqueue_call(
                names.ANNOUNCE_FUNCTION,
                args=(announcement.model_dump_json(),),
                job_id=uuid4().hex,
                description=f"{announcement.type} {announcement.job_id}",
                result_ttl=0,
                failure_ttl=DEAD_LETTER_SECONDS,
            )
        except RedisError as error:
            raise TransportUnavailable(f"Redis can't take announcements now ({type(error).__name__})") from error

    def answers(self, asked: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Answer]:
        wanted = list(asked)
        if not wanted:
            return {}
        try:
            texts = self._redis.mget([names.answer_key(uid, type_) for uid, type_ in wanted])
        except RedisError as error:
            raise TransportUnavailable(f"Redis can't be asked for answers now ({type(error).__name__})") from error
        found: dict[tuple[str, str], Answer] = {}
        for key, text in zip(wanted, texts, strict=True):
            with suppress(ValidationError):  # none yet, or written by another version
                found[key] = Answer.model_validate_json(text or "")
        return found

    def close(self) -> None:
        """Give the connections back."""
        self._redis.close()
