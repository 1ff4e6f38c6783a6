"""The event stream as an ASGI answer: no iterators, no tasks but the one that sees the client leave."""

import asyncio
import time

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from dreamforge import telemetry
from dreamforge.errors import DreamForgeError
from dreamforge_api import metrics
from dreamforge_api.progress import frames
from dreamforge_api.progress.broadcaster import Broadcaster, Subscription

_log = telemetry.logger(__name__)
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class EventStream(Response):
    """Sends a subscription's frames until the job ends, the client leaves, or the process stops."""

    def __init__(self, broadcaster: Broadcaster, subscription: Subscription) -> None:
        super().__init__(media_type="text/event-stream")
        self._broadcaster = broadcaster
        self._subscription = subscription

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        subscription = self._subscription
        leaving = asyncio.create_task(_watch(subscription, receive))
        subscription.task = asyncio.current_task()
        try:
            await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
            await self._pump(send)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except DreamForgeError as error:
            # The rest can't be read now. The client comes back with its Last-Event-ID.
            _log.warning("an event stream ends early", job_id=str(subscription.tailer.job_id), error=str(error))
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except asyncio.CancelledError:
            if not subscription.stuck:
                raise
            # The clock gave this reader up: it took nothing for too long. The server closes the connection.
            if subscription.task is not None:
                subscription.task.uncancel()
        finally:
            leaving.cancel()
            self._broadcaster.detach(subscription)

    async def _pump(self, send: Send) -> None:
        subscription = self._subscription
        await _send(send, subscription, frames.RETRY)
        while not subscription.closed:
            data = await self._next()
            if data is not None:
                await _send(send, subscription, data)
            elif subscription.tailer.window.ended:
                await _send(send, subscription, frames.end(subscription.cursor))
                return
            elif subscription.heartbeat_due:
                await _send(send, subscription, frames.HEARTBEAT)
            else:
                await subscription.wait()

    async def _next(self) -> bytes | None:
        """The bytes that follow, and the cursor moved past them."""
        subscription = self._subscription
        tailer = subscription.tailer
        if subscription.cursor < tailer.window.floor:
            page = await tailer.page_after(subscription.cursor)
            if page:
                subscription.cursor = page[-1].seq
                return b"".join([frame.data for frame in page])
        chunk = tailer.window.next_chunk(subscription.cursor, subscription.live_from)
        if chunk is None:
            return None
        subscription.cursor = chunk.cursor
        if chunk.skipped:
            metrics.SSE_SUPERSEDED.inc(chunk.skipped)
        return chunk.data


async def _send(send: Send, subscription: Subscription, data: bytes) -> None:
    subscription.sending_since = time.monotonic()
    await send({"type": "http.response.body", "body": data, "more_body": True})
    subscription.sending_since = None
    subscription.sent_at = time.monotonic()
    subscription.heartbeat_due = False


async def _watch(subscription: Subscription, receive: Receive) -> None:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            subscription.close()
            return
