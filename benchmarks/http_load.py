"""A lean HTTP/1.1 client: keep-alive connections that each send the next request when the last is answered.

It knows just enough HTTP for uvicorn's answers (a status line and a Content-Length), so that it takes little CPU
from the server it measures; how much is told with each result.
"""

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
_PATIENCE_SECONDS = 30.0

MakeRequest = Callable[[int], bytes]


@dataclass
class Answers:
    """What came back."""

    count: int = 0
    seconds: float = 0.0
    client_cpu_seconds: float = 0.0
    #: Seconds from sending to the whole answer, of each request.
    latencies: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return self.count / self.seconds

    @property
    def client_share(self) -> float:
        """Cores the client took."""
        return self.client_cpu_seconds / self.seconds

    def percentile(self, share: float) -> float:
        """In milliseconds."""
        return sorted(self.latencies)[int(share * (len(self.latencies) - 1))] * 1000


def post(path: str, body: bytes, headers: str = "") -> bytes:
    """The bytes of a JSON POST; ``headers`` are whole lines, each with its line end."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n{headers}\r\n"
    )
    return head.encode() + body


def get(path: str) -> bytes:
    """The bytes of a GET."""
    return f"GET {path} HTTP/1.1\r\nHost: bench\r\nAccept: */*\r\n\r\n".encode()


class _Load:
    """What all connections share."""

    def __init__(self, make: MakeRequest, status: int, limit: int | None) -> None:
        self._make = make
        self._limit = limit
        self._sent = 0
        self.status = str(status).encode()
        self.answers = Answers()
        self.stopping = False
        self.failure: str | None = None

    def next(self) -> bytes | None:
        """The request to send now; ``None``: no more."""
        if self.stopping or self.failure or self._sent == self._limit:
            return None
        self._sent += 1
        return self._make(self._sent - 1)


class _Connection(asyncio.Protocol):
    def __init__(self, load: _Load) -> None:
        self._load = load
        self._buffer = b""
        self._sent_at = 0.0
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without saying so
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head = self._buffer.find(b"\r\n\r\n")
        length = _LENGTH.search(self._buffer, 0, head + 2) if head >= 0 else None
        if length is None or len(self._buffer) < head + 4 + int(length[1]):
            return
        now = time.perf_counter()
        if self._buffer[9:12] != self._load.status:
            self._load.failure = self._buffer[:1000].decode(errors="replace")
        self._buffer = b""
        self._load.answers.count += 1
        self._load.answers.latencies.append(now - self._sent_at)
        self._send()

    def connection_lost(self, _: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)

    def _send(self) -> None:
        request = self._load.next()
        if request is None:
            self._transport.close()
            return
        self._sent_at = time.perf_counter()
        self._transport.write(request)


async def _connect(load: _Load, port: int, connections: int) -> list["asyncio.Future[None]"]:
    loop = asyncio.get_running_loop()
    made = [await loop.create_connection(lambda: _Connection(load), "127.0.0.1", port) for _ in range(connections)]
    return [protocol.closed for _, protocol in made]


async def _run(load: _Load, port: int, connections: int, seconds: float | None, warm: float) -> Answers:
    cpu, began = time.process_time(), time.perf_counter()
    closed = await _connect(load, port, connections)
    if seconds is not None:
        await asyncio.sleep(warm)
        load.answers = Answers()
        cpu, began = time.process_time(), time.perf_counter()
        await asyncio.sleep(seconds)
    else:
        await asyncio.wait_for(asyncio.gather(*closed), _PATIENCE_SECONDS)
    answers = load.answers
    answers.seconds, answers.client_cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    load.answers, load.stopping = Answers(), True
    await asyncio.wait_for(asyncio.gather(*closed), _PATIENCE_SECONDS)
    if load.failure:
        raise RuntimeError(f"an unexpected answer: {load.failure}")
    return answers


def for_seconds(
    port: int, make: MakeRequest, seconds: float, *, connections: int, warm: float = 0.5, status: int = 202
) -> Answers:
    """Load for ``warm + seconds``; only the latter count."""
    return uvloop.run(_run(_Load(make, status, None), port, connections, seconds, warm))


def for_count(port: int, make: MakeRequest, count: int, *, connections: int, status: int = 202) -> Answers:
    """Exactly ``count`` requests."""
    return uvloop.run(_run(_Load(make, status, count), port, connections, None, 0.0))
