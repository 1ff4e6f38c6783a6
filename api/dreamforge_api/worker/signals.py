"""What the worker says on Redis: acks to runners, news to readers, wake-ups to the control loop.

All of it is a hint that makes things fast. Losing any of it costs a second or a resend, never a fact.
"""

import time
from uuid import UUID

from redis import Redis
from redis.client import PubSub
from redis.exceptions import RedisError

from dreamforge import telemetry
from dreamforge.announcements import Answer, Progress
from dreamforge.events import Ack
from dreamforge.transport import names

log = telemetry.logger("signals")


class Signals:
    """Speaks on one connection pool; never raises for Redis being away."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def announce(self, job_id: UUID, seq: int) -> None:
        """Tell stream readers that the job has events up to ``seq``."""
        self._publish(names.EVENTS_CHANNEL, f"{job_id} {seq}")

    def committed(self, ack: Ack, job_id: UUID, job_seq: int, progress: Progress | None = None) -> None:
        """After a commit: the runner's ack, the readers' news and a cluster's in one round trip."""
        try:
            with self._redis.pipeline(transaction=False) as pipe:
                pipe.set(names.ack_key(ack.attempt_id), ack.model_dump_json(), ex=names.ACK_TTL_SECONDS)
                if job_seq:
                    pipe.publish(names.EVENTS_CHANNEL, f"{job_id} {job_seq}")
                if progress is not None:
                    pipe.publish(names.PROGRESS_CHANNEL, progress.model_dump_json())
                pipe.execute()
        except RedisError as error:
            # The runner sends the batch again and gets its ack then.
            log.warning("an ack was not delivered", error=str(error), job_id=str(job_id))

    def answered(self, answer: Answer, job_id: UUID, job_seq: int | None) -> None:
        """After a commit: the operator's answer and the readers' news."""
        try:
            with self._redis.pipeline(transaction=False) as pipe:
                key = names.answer_key(answer.uid, answer.type)
                pipe.set(key, answer.model_dump_json(), ex=names.ANSWER_TTL_SECONDS)
                if job_seq:
                    pipe.publish(names.EVENTS_CHANNEL, f"{job_id} {job_seq}")
                pipe.execute()
        except RedisError as error:
            # The operator says it again and is answered then.
            log.warning("an answer was not delivered", error=str(error), job_id=str(job_id))

    def wake(self) -> None:
        """Have the control loop look at once."""
        self._publish(names.WAKE_CHANNEL, "")

    def _publish(self, channel: str, message: str) -> None:
        try:
            self._redis.publish(channel, message)
        except RedisError as error:
            log.warning("a hint was not delivered", channel=channel, error=str(error))


class Waker:
    """Waits for a wake-up, or for time to pass when Redis is away."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._pubsub: PubSub | None = None

    def wait(self, seconds: float) -> None:
        """Return when woken, at the latest after ``seconds``. Several wake-ups at once count as one."""
        until = time.monotonic() + seconds
        try:
            pubsub = self._subscription()
            while (left := until - time.monotonic()) > 0:
                if self._is_wake(pubsub.get_message(timeout=left)):
                    while pubsub.get_message(timeout=0) is not None:
                        pass
                    return
        except RedisError:
            self._pubsub = None
            time.sleep(max(0.0, until - time.monotonic()))

    def _subscription(self) -> PubSub:
        if self._pubsub is None:
            self._pubsub = self._redis.pubsub()  # type: ignore[no-untyped-call]  # redis-py leaves it bare
            self._pubsub.subscribe(names.WAKE_CHANNEL)
        return self._pubsub

    @staticmethod
    def _is_wake(message: dict[str, object] | None) -> bool:
        return message is not None and message.get("type") == "message"
