"""A database that takes every word and answers none, as after a fail-over: the API's connections are not used up."""

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import QueuePool, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine

from dreamforge.db.engine import open_async_engine
from dreamforge.storage.filesystem import FilesystemStore
from dreamforge_api import database as api_database
from dreamforge_api.bus import Bus
from dreamforge_api.database import Database
from dreamforge_api.direct import DirectConnections
from dreamforge_api.health.readiness import Readiness
from tests.api_server import SIGNING_KEY, Api, poll
from tests.servers.relay import SilentRelay

ONE = text("SELECT 1 AS one")


@pytest.fixture
def relay(database_url: str) -> Iterator[SilentRelay]:
    url = make_url(database_url)
    made = SilentRelay(url.host or "127.0.0.1", url.port or 5432)
    yield made
    made.close()


@pytest.fixture
def relayed_url(database_url: str, relay: SilentRelay) -> str:
    url = make_url(database_url).set(host="127.0.0.1", port=relay.port)
    return url.render_as_string(hide_password=False)


def on_database(url: str, work: Callable[[Database, AsyncEngine], Awaitable[None]]) -> None:
    """Run ``work`` on the API's own database layer; nothing may be left that nobody looked at."""

    async def whole() -> list[dict[str, Any]]:
        unseen: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
        engine = open_async_engine(url)
        database = Database(engine, DirectConnections(url, 2))
        try:
            await work(database, engine)
        finally:
            await database.dispose()
        gc.collect()
        await asyncio.sleep(0)
        return unseen

    assert asyncio.run(whole()) == []


def pool_of(engine: AsyncEngine) -> QueuePool:
    return cast("QueuePool", engine.pool)


async def until_none_is_in_use(pool: QueuePool) -> None:
    async with asyncio.timeout(20):
        while pool.checkedout():  # noqa: ASYNC110 - the pool tells nobody
            await asyncio.sleep(0.02)


async def until_ready(readiness: Readiness) -> None:
    async with asyncio.timeout(20):
        while not all(check.ok for check in await readiness.checks()):  # noqa: ASYNC110 - as a prober does
            await asyncio.sleep(0.02)


def test_probes_of_a_silent_database_hold_one_connection(
    tmp_path: Path, relay: SilentRelay, relayed_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_database, "LATE_SECONDS", 600)

    async def work(database: Database, engine: AsyncEngine) -> None:
        bus = Bus(redis_url)
        readiness = Readiness(database, bus, FilesystemStore(tmp_path, signing_key=SIGNING_KEY))
        await until_ready(readiness)
        relay.silence()
        for _ in range(2):
            seen = await asyncio.gather(*(readiness.checks() for _ in range(6)))
            assert [check.name for check in seen[0] if not check.ok] == ["database", "schema"]
            assert pool_of(engine).checkedout() == 1
        relay.speak()
        await until_none_is_in_use(pool_of(engine))
        await until_ready(readiness)
        await bus.close()

    on_database(relayed_url, work)


def test_a_statement_whose_caller_was_canceled_is_still_looked_after(relay: SilentRelay, relayed_url: str) -> None:
    async def work(database: Database, engine: AsyncEngine) -> None:
        await database.scalar(ONE)
        relay.silence()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await database.scalar(ONE)
        gc.collect()
        pool = pool_of(engine)
        assert pool.checkedout() == 1
        relay.close()  # it fails, and so does its second try
        await until_none_is_in_use(pool)

    on_database(relayed_url, work)


def test_connections_that_stay_silent_are_given_up(
    relay: SilentRelay, relayed_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_database, "LATE_SECONDS", 0.2)

    async def work(database: Database, engine: AsyncEngine) -> None:
        pool = pool_of(engine)
        async with engine.connect(), engine.connect(), engine.connect():
            pass
        assert pool.checkedin() == 3
        relay.silence()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await database.scalar(ONE)
        await until_none_is_in_use(pool)
        relay.move()
        assert await database.scalar(ONE) == 1, "the other two were not tried first"

    on_database(relayed_url, work)


def test_requests_are_served_once_the_database_is_back_elsewhere(
    tmp_path: Path, relay: SilentRelay, relayed_url: str, redis_url: str
) -> None:
    with Api(tmp_path, relayed_url, redis_url) as api:
        made = api.create()
        with ThreadPoolExecutor(12) as pool:
            list(pool.map(lambda _: api.client.get("/v1/jobs"), range(100)))  # every connection of the pool is open
            relay.silence()
            probes = pool.map(lambda _: api.client.get("/readyz").status_code, range(12))
            assert set(probes) == {503}
        relay.move()
        poll(lambda: api.client.get(made["urls"]["self"]).status_code == 200, "requests are served", 60)
        poll(lambda: api.client.get("/readyz").status_code == 200, "readiness", 60)
