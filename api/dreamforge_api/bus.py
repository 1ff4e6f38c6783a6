"""The API's side of Redis: wake the control loop, announce events, hear announcements.

All of it is a convenience. When Redis is away, the control loop sweeps and event streams poll; so nothing here may
fail or delay a request.
"""

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from dreamforge import telemetry
from dreamforge.errors import Unavailable
from dreamforge.transport import names

#: Between two wake-ups: a job right behind another waits for it; thousands of jobs a second make 200 messages of it.
_WAKE_GAP_SECONDS = 0.005
_RECONNECT_SECONDS = 0.5
_LISTEN_SECONDS = 5.0
_log = telemetry.logger(__name__)

OnEvents = Callable[[UUID, int], None]


class Bus:
    """One client and one subscription for the whole process."""

    def __init__(self, url: str) -> None:
        self._redis: Redis = Redis.from_url(
            url,
            socket_connect_timeout=1.0,
            socket_timeout=1.5,
            # A second try is for the caller to make: a request must not wait out a backoff.
            retry=Retry(NoBackoff(), 0),
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._wanted = False
        self._waking = False
        #: Whether announcements arrive now.
        self.connected = False

    def wake(self) -> None:
        """Tell the control loop that there is work: at once, then at most every 5 ms."""
        self._wanted = True
        if not self._waking:
            self._waking = True
            self._spawn(self._wake())

    def announce(self, job_id: UUID, seq: int) -> None:
        """Tell every API process that the job has events up to ``seq``."""
        self._spawn(self._publish(names.EVENTS_CHANNEL, f"{job_id} {seq}"))

    async def check(self) -> None:
        """Raises :class:`~dreamforge.errors.Unavailable` unless Redis answers."""
        try:
            await self._redis.ping()
        except (RedisError, OSError) as error:
            raise Unavailable("Redis is not reachable") from error

    async def sorted_set_size(self, key: str) -> int:
        return int(await self._redis.zcard(key))

    async def listen(self, on_events: OnEvents, on_connected: Callable[[], None]) -> None:
        """Hear announcements for ever. ``on_connected`` runs after every gap in which some may have been missed."""
        while True:
            try:
                async with self._redis.pubsub(ignore_subscribe_messages=True) as channel:
                    await channel.subscribe(names.EVENTS_CHANNEL)
                    self.connected = True
                    on_connected()
                    await self._hear(channel, on_events)
            except (RedisError, OSError) as error:
                if self.connected:
                    _log.warning("Redis went away; event streams poll", error=type(error).__name__)
            finally:
                self.connected = False
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def close(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._redis.aclose()

    async def _hear(self, channel: PubSub, on_events: OnEvents) -> None:
        while True:
            message = await channel.get_message(timeout=_LISTEN_SECONDS)
            if message is not None and message["type"] == "message":
                announced = _parse(message["data"])
                if announced is not None:
                    on_events(*announced)

    async def _wake(self) -> None:
        try:
            while self._wanted:
                self._wanted = False
                await self._publish(names.WAKE_CHANNEL, "")
                await asyncio.sleep(_WAKE_GAP_SECONDS)
        finally:
            self._waking = False

    async def _publish(self, channel: str, payload: str) -> None:
        try:
            await self._redis.publish(channel, payload)
        except (RedisError, OSError) as error:
            _log.debug("not published", channel=channel, error=type(error).__name__)

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _parse(data: bytes) -> tuple[UUID, int] | None:
    job_id, _, seq = data.decode("ascii", "replace").partition(" ")
    try:
        return UUID(job_id), int(seq)
    except ValueError:
        return None
