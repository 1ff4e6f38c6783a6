"""Whether this process can do its work: database, schema, Redis and store, each asked for real."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from sqlalchemy.exc import SQLAlchemyError

from dreamforge.errors import DreamForgeError
from dreamforge.storage.base import Storage
from dreamforge_api import migrate
from dreamforge_api.bus import Bus
from dreamforge_api.database import Database, NoSchema

_WITHIN_SECONDS = 1.5


class Check(NamedTuple):
    """One part's answer; ``detail`` is for people."""

    name: str
    ok: bool
    detail: str


class Readiness:
    """Asks every part at once; a silent one counts as down after 1.5 s.

    Probes come every few seconds, whatever became of the last one: the database is asked one question, one at a time.
    """

    def __init__(self, database: Database, bus: Bus, storage: Storage) -> None:
        self._database = database
        self._bus = bus
        self._storage = storage

    async def checks(self) -> list[Check]:
        database, redis, store = await asyncio.gather(
            _bounded("database", self._ask_database),
            _bounded("redis", self._ask_redis),
            _bounded("store", self._ask_store),
        )
        if not database.ok:
            return [database, database._replace(name="schema"), redis, store]
        return [database._replace(detail="answers"), _schema(database.detail), redis, store]

    async def _ask_database(self) -> str:
        """The schema's revision; empty when there is none."""
        try:
            return str(await self._database.shared(migrate.REVISION) or "")
        except NoSchema:
            return ""

    async def _ask_redis(self) -> str:
        await self._bus.check()
        return "answers"

    async def _ask_store(self) -> str:
        await asyncio.to_thread(self._storage.check)
        return "reads and writes"


def _schema(found: str) -> Check:
    needed = migrate.head()
    if not migrate.fits(found):
        return Check("schema", False, f"at {found or 'nothing'}, this code needs {needed}")
    return Check("schema", True, f"at {found}" if found == needed else f"at {found}, newer than this code's {needed}")


async def _bounded(name: str, ask: Callable[[], Awaitable[str]]) -> Check:
    try:
        async with asyncio.timeout(_WITHIN_SECONDS):
            return Check(name, True, await ask())
    except TimeoutError:
        return Check(name, False, f"no answer within {_WITHIN_SECONDS} s")
    except (DreamForgeError, SQLAlchemyError) as error:
        return Check(name, False, str(error)[:200])
