"""Many readers of one event stream, in a process of their own: ``python -m benchmarks.sse_reader PORT PATH READERS``.

Prints one JSON line when all are connected, then one each time the slowest of them has ``EVERY`` more events.
"""

import argparse
import asyncio
import json
import sys
import time
from typing import cast

import uvloop

#: What begins every event, and neither a heartbeat nor a ``retry:`` line.
_MARK = b"event: "
_AT_ONCE = 50


class _Readers:
    """Counts for all; ``level`` is how many times ``every`` events the slowest reader has."""

    def __init__(self, total: int, every: int) -> None:
        self.total = total
        self.every = every
        self.frames = 0
        self.lost = 0
        self.ready = asyncio.get_running_loop().create_future()
        self._greeted = 0
        self._above: dict[int, int] = {}

    def greeted(self) -> None:
        self._greeted += 1
        if self._greeted == self.total:
            self.ready.set_result(None)

    def reached(self, level: int) -> None:
        """One more reader has ``level * every`` events."""
        above = self._above[level] = self._above.get(level, 0) + 1
        if above == self.total:
            del self._above[level]
            say(level=level, at=time.monotonic(), frames=self.frames, cpu=time.process_time(), lost=self.lost)


class _Reader(asyncio.Protocol):
    def __init__(self, readers: _Readers, request: bytes) -> None:
        self._readers = readers
        self._request = request
        self._tail = b""
        self._count = 0
        self._greeted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        text = self._tail + data
        if not self._greeted:
            if b"retry:" not in text:
                self._tail = text
                return
            if not text.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(text[:500].decode())
            self._greeted = True
            self._readers.greeted()
        found = text.count(_MARK)
        self._tail = text[-len(_MARK) + 1 :]
        if found:
            before, self._count = self._count, self._count + found
            self._readers.frames += found
            for level in range(before // self._readers.every + 1, self._count // self._readers.every + 1):
                self._readers.reached(level)

    def connection_lost(self, _: Exception | None) -> None:
        self._readers.lost += 1


def say(**fields: object) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


async def run(port: int, path: str, total: int, every: int) -> None:
    """Until stdin closes."""
    loop = asyncio.get_running_loop()
    readers = _Readers(total, every)
    request = f"GET {path} HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\n\r\n".encode()
    for start in range(0, total, _AT_ONCE):
        some = range(min(_AT_ONCE, total - start))
        connecting = [loop.create_connection(lambda: _Reader(readers, request), "127.0.0.1", port) for _ in some]
        await asyncio.gather(*connecting)
    await asyncio.wait_for(readers.ready, 60)
    say(ready=total, at=time.monotonic())
    await loop.run_in_executor(None, sys.stdin.read)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("readers", type=int)
    parser.add_argument("--every", type=int, default=10)
    given = parser.parse_args()
    uvloop.run(run(given.port, given.path, given.readers, given.every))


if __name__ == "__main__":
    main()
