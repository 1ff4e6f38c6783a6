"""A thousand readers of one job cost the database what one costs: the broadcaster in process, on a real Postgres."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.ext.asyncio import AsyncEngine

from dreamforge.db.engine import open_async_engine
from dreamforge_api.bus import Bus
from dreamforge_api.database import Database
from dreamforge_api.direct import DirectConnections
from dreamforge_api.progress.broadcaster import Broadcaster, StreamOptions
from dreamforge_api.progress.stream import EventStream
from tests import jobs
from tests.api_server import Recorder, log, progress

EVENTS = 40


@asynccontextmanager
async def broadcasting(database_url: str, redis_url: str) -> AsyncIterator[tuple[Broadcaster, Bus, AsyncEngine]]:
    engine = open_async_engine(database_url)
    database = Database(engine, DirectConnections(database_url, 1))
    bus = Bus(redis_url)
    broadcaster = Broadcaster(database, bus, StreamOptions(max_streams=2000, lag=100_000))
    running = asyncio.create_task(broadcaster.run())
    try:
        yield broadcaster, bus, engine
    finally:
        broadcaster.close()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await bus.close()
        await database.dispose()


class Reader:
    """An ASGI client that keeps what it is sent."""

    def __init__(self) -> None:
        self.body = b""

    async def send(self, message: Mapping[str, Any]) -> None:
        self.body += message.get("body", b"")

    async def receive(self) -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError("never leaves")


async def read_live(database_url: str, redis_url: str, job_id: UUID, readers: int) -> tuple[int, set[bytes]]:
    """``readers`` follow a job while it works; gives the statements that cost and what they saw."""
    statements = 0
    plain = create_engine(database_url)
    recorder = Recorder(plain, redis_url)
    async with broadcasting(database_url, redis_url) as (broadcaster, bus, engine):

        @event.listens_for(engine.sync_engine, "before_cursor_execute")
        def count(*_: object) -> None:
            nonlocal statements
            statements += 1

        async with asyncio.timeout(120):
            while not bus.connected:  # noqa: ASYNC110 - the product has no such event to wait for
                await asyncio.sleep(0.01)
            clients = [Reader() for _ in range(readers)]
            streams = []
            for client in clients:
                subscription = await broadcaster.attach(job_id, 0, "after", "query")
                assert subscription is not None
                streams.append(EventStream(broadcaster, subscription)({"type": "http"}, client.receive, client.send))
            reading = asyncio.gather(*streams)
            for n in range(EVENTS):
                seq = await asyncio.to_thread(recorder.append, str(job_id), progress(0, n / EVENTS), log(str(n)))
                while b"id: %d\n" % seq not in clients[0].body:  # noqa: ASYNC110 - bytes have no event
                    await asyncio.sleep(0.005)
            await asyncio.to_thread(recorder.finish, str(job_id))
            await reading
    recorder.close()
    plain.dispose()
    return statements, {client.body for client in clients}


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = create_engine(database_url)
    yield made
    made.dispose()


def test_a_thousand_readers_cost_what_one_costs(database_url: str, redis_url: str, engine: Engine) -> None:
    alone, seen_alone = asyncio.run(read_live(database_url, redis_url, jobs.create(engine), 1))
    together, seen_together = asyncio.run(read_live(database_url, redis_url, jobs.create(engine), 1000))
    for seen in (seen_alone, seen_together):
        assert len(seen) == 1, "everyone saw the same bytes"
        body = next(iter(seen))
        assert body.count(b"\nid: ") == EVENTS * 2 + 1
        assert body.endswith(b'data: {"last_seq": %d}\n\n' % (EVENTS * 2 + 1))
    assert alone >= EVENTS
    # A poll may happen to fall between two announcements; a query for each reader would be a thousand more.
    assert together <= alone * 1.1 + 10
