"""All event streams of this process: who reads which job, and what keeps them moving.

One subscription to Redis, one tailer for each job that is read, one clock for heartbeats, stuck readers and the
safety net. A reader costs a cursor and a future, and no query.
"""

import asyncio
import time
from typing import NamedTuple
from uuid import UUID

from dreamforge.errors import ErrorCode
from dreamforge_api import background, metrics
from dreamforge_api.bus import Bus
from dreamforge_api.database import Database
from dreamforge_api.problem import bad_parameter, busy
from dreamforge_api.progress.tailer import Tailer
from dreamforge_api.progress.window import Window

#: Seconds between looks at the database without an announcement: Redis away, Redis there.
_POLL_SECONDS = 1.0
_SAFETY_SECONDS = 5.0
#: A tailer outlives its last reader by this, so that a reconnect finds it.
_LINGER_SECONDS = 5.0


class StreamOptions(NamedTuple):
    """Bounds of the event streams, in seconds and frames; see ``ApiSettings``."""

    max_streams: int = 2000
    heartbeat_seconds: float = 15.0
    send_timeout_seconds: float = 10.0
    window: int = 5000
    lag: int = 200


class Subscription:
    """One reader: where it stands, and how to wake it."""

    __slots__ = (
        "_waiter",
        "closed",
        "cursor",
        "heartbeat_due",
        "live_from",
        "sending_since",
        "sent_at",
        "stuck",
        "tailer",
        "task",
    )

    def __init__(self, tailer: Tailer, cursor: int) -> None:
        self.tailer = tailer
        self.cursor = cursor
        self.live_from = tailer.window.last_seq
        self.closed = False
        self.heartbeat_due = False
        self.sent_at = time.monotonic()
        self.sending_since: float | None = None
        self.stuck = False
        self.task: asyncio.Task[object] | None = None
        self._waiter: asyncio.Future[None] | None = None

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        """Let the reader go at the next opportunity."""
        self.closed = True
        self.wake()

    def give_up(self) -> None:
        """Stop waiting for a reader that takes nothing."""
        self.stuck = self.closed = True
        if self.task is not None:
            self.task.cancel()

    async def wait(self) -> None:
        """Sleep until :meth:`wake`."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None


class Broadcaster:
    """Attaches readers to jobs."""

    def __init__(self, database: Database, bus: Bus, options: StreamOptions) -> None:
        self._database = database
        self._bus = bus
        self._options = options
        self._tailers: dict[UUID, Tailer] = {}
        self._readers = 0
        self._closed = False

    async def attach(self, job_id: UUID, after: int, named: str, where: str) -> Subscription | None:
        """A reader of everything later than ``after``; ``None`` when the job ended and nothing is.

        ``named`` and ``where`` say which parameter ``after`` came from. Raises :class:`Problem`: 404, 400, 429.
        """
        if self._readers >= self._options.max_streams or self._closed:
            raise busy(
                ErrorCode.TOO_MANY_STREAMS, f"{self._options.max_streams} streams are open, which is the limit"
            )
        tailer = await self._tailer(job_id)
        if after > tailer.window.last_seq:  # another process may have told the client more than is known here
            await tailer.refresh()
        last_seq = tailer.window.last_seq
        if after > last_seq:
            raise bad_parameter(named, "less_than_equal", "Must not be later than the job's last event", where=where)
        if tailer.window.ended and after == last_seq:
            return None
        subscription = Subscription(tailer, after)
        tailer.subscriptions.add(subscription)
        self._readers += 1
        metrics.SSE_SUBSCRIBERS.inc()
        return subscription

    def detach(self, subscription: Subscription) -> None:
        tailer = subscription.tailer
        if subscription in tailer.subscriptions:
            tailer.subscriptions.discard(subscription)
            tailer.idle_since = time.monotonic()
            self._readers -= 1
            metrics.SSE_SUBSCRIBERS.dec()

    def close(self) -> None:
        """End every stream now; clients come back elsewhere."""
        self._closed = True
        for tailer in self._tailers.values():
            for subscription in tailer.subscriptions:
                subscription.close()
            tailer.close()

    async def run(self) -> None:
        """Keep the streams moving, for ever."""
        tick = min(_POLL_SECONDS, self._options.heartbeat_seconds / 2, self._options.send_timeout_seconds / 2)
        tasks = [
            asyncio.create_task(self._bus.listen(self._on_events, self._look_everywhere)),
            asyncio.create_task(background.every(tick, self._tick, name="event streams")),
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            await background.cancel(tasks)

    async def _tailer(self, job_id: UUID) -> Tailer:
        tailer = self._tailers.get(job_id)
        if tailer is None:
            tailer = Tailer(job_id, self._database, Window(self._options.window, self._options.lag))
            self._tailers[job_id] = tailer
        tailer.idle_since = time.monotonic()
        try:
            await tailer.opened()
        except BaseException:
            if self._tailers.get(job_id) is tailer and tailer.failed:
                del self._tailers[job_id]
            raise
        return tailer

    def _on_events(self, job_id: UUID, seq: int) -> None:
        if tailer := self._tailers.get(job_id):
            tailer.look(seq)

    def _look_everywhere(self) -> None:
        for tailer in self._tailers.values():
            tailer.look()

    async def _tick(self) -> None:
        now = time.monotonic()
        patience = _SAFETY_SECONDS if self._bus.connected else _POLL_SECONDS
        for job_id, tailer in list(self._tailers.items()):
            if not tailer.subscriptions and now - tailer.idle_since > _LINGER_SECONDS:
                del self._tailers[job_id]
                tailer.close()
                continue
            if now - tailer.read_at >= patience * 0.9:
                tailer.look()
            for subscription in tailer.subscriptions:
                self._mind(subscription, now)

    def _mind(self, subscription: Subscription, now: float) -> None:
        since = subscription.sending_since
        if since is not None:
            if now - since > self._options.send_timeout_seconds:
                subscription.give_up()
        elif now - subscription.sent_at >= self._options.heartbeat_seconds:
            subscription.heartbeat_due = True
            subscription.wake()
