"""Counts the statements that a process sends to PostgreSQL: a proxy that reads the wire protocol's message types.

Exact, at once, and only for that process, unlike the server's own statistics (which lag and count everyone).
"""

import asyncio
import contextlib
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import make_url

#: Execute of the extended protocol, and a simple Query: one of them for each statement.
_STATEMENTS = (b"E", b"Q")
_SSL_REQUEST, _GSS_REQUEST = 80877103, 80877104


class QueryCounter:
    """A TCP proxy in a thread of its own; ``count`` is how many statements passed."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.count = 0
        self.port = 0
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="query-counter", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._ready.wait(10)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(*self._target)
        back = asyncio.create_task(_copy(server_reader, writer))
        try:
            await self._forward(reader, server_writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # one side left
        finally:
            back.cancel()
            for side in (server_writer, writer):
                side.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        started = False
        while True:
            kind = await reader.readexactly(1) if started else b""
            raw = await reader.readexactly(4)
            body = await reader.readexactly(struct.unpack(">I", raw)[0] - 4)
            if not started:  # messages have no type until the start-up packet has passed
                started = struct.unpack(">I", body[:4])[0] not in (_SSL_REQUEST, _GSS_REQUEST)
            elif kind in _STATEMENTS:
                self.count += 1
            writer.write(kind + raw + body)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)


@contextmanager
def counting(database_url: str) -> Iterator[tuple[QueryCounter, str]]:
    """The counter, and the URL that leads through it."""
    url = make_url(database_url)
    counter = QueryCounter((url.host or "127.0.0.1", url.port or 5432))
    counter.start()
    try:
        # Nothing to read in an encrypted stream.
        through = url.set(host="127.0.0.1", port=counter.port).update_query_dict({"sslmode": "disable"})
        yield counter, through.render_as_string(hide_password=False)
    finally:
        counter.stop()
