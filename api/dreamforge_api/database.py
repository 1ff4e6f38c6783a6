"""Running statements for requests: one deadline, one second try, one error when the database is away.

Every answer is due within two seconds. A statement that has not come back by then keeps its connection and goes on
behind the scenes, for a server that is only slow; the request gets :class:`~dreamforge.errors.Unavailable`. When even
the server's own bound for a statement is over, there is no server: all connections to it are given up.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from psycopg import errors as pg
from sqlalchemy import Executable, RowMapping, TextClause
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from dreamforge import telemetry
from dreamforge.errors import Unavailable
from dreamforge_api.direct import DirectConnections

ANSWER_WITHIN_SECONDS = 1.8
#: After that: past ``statement_timeout`` (5 s), a living server has answered something.
LATE_SECONDS = 4.0

T = TypeVar("T")
Parameters = Mapping[str, Any]
_log = telemetry.logger(__name__)


class LockTimeout(Unavailable):
    """Another transaction holds what this statement needs; it may do so for longer when its process is frozen."""


class NoSchema(Unavailable):
    """The database answers, and does not know the tables."""


class Database:
    """Statements on an engine in autocommit: each is one round trip and one transaction."""

    def __init__(self, engine: AsyncEngine, direct: DirectConnections) -> None:
        self._engine = engine
        self._direct = direct
        self._late: dict[asyncio.Task[Any], asyncio.Task[None]] = {}
        self._shared: dict[Executable, asyncio.Task[Any]] = {}

    async def rows(self, statement: Executable, parameters: Parameters | None = None) -> Sequence[RowMapping]:
        async def work(connection: AsyncConnection) -> Sequence[RowMapping]:
            result = await connection.execute(statement, parameters)
            return result.mappings().all() if result.returns_rows else []

        return await self.run(work)

    async def row(self, statement: Executable, parameters: Parameters | None = None) -> RowMapping | None:
        found = await self.rows(statement, parameters)
        return found[0] if found else None

    async def scalar(self, statement: Executable, parameters: Parameters | None = None) -> Any:
        found = await self.rows(statement, parameters)
        return next(iter(found[0].values())) if found else None

    async def shared(self, statement: Executable) -> Any:
        """A scalar that is asked for again and again: on one connection at most, however long that takes.

        Who asks while the statement is under way shares its answer.
        """

        async def work(connection: AsyncConnection) -> Any:
            return (await connection.execute(statement)).scalar()

        task = self._shared.get(statement)
        if task is None or task.done():
            task = self._shared[statement] = asyncio.create_task(self._attempts(work))
        return await self._in_time(task)

    async def write(self, statement: TextClause, parameters: Parameters) -> list[tuple[Any, ...]]:
        """Run a statement that returns rows the short way. It may run twice."""
        return await self._in_time(asyncio.create_task(self._write(statement, parameters)))

    async def run(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run ``work`` on a connection. It must be right to run it twice: a dropped connection is tried again."""
        return await self._in_time(asyncio.create_task(self._attempts(work)))

    async def _in_time(self, task: asyncio.Task[T]) -> T:
        try:
            await asyncio.wait((task,), timeout=ANSWER_WITHIN_SECONDS)
        finally:  # the caller's patience may end first
            if not task.done() and task not in self._late:
                self._late[task] = asyncio.create_task(self._see_to(task))
        if task.done():
            return task.result()
        raise Unavailable("The database does not answer")

    async def _see_to(self, task: asyncio.Task[Any]) -> None:
        """Wait for a late statement, up to a bound."""
        await asyncio.wait((task,), timeout=LATE_SECONDS)
        if not task.done():
            await self._engine.dispose()
            await self._direct.close()
        while not task.done():  # canceled once, psycopg asks the silent server; canceled again, it closes
            task.cancel()
            await asyncio.wait((task,), timeout=0.1)
        del self._late[task]
        error = None if task.cancelled() else task.exception()
        if error or task.cancelled():
            _log.warning("a late statement failed", error=type(error).__name__ if error else "no answer")

    async def dispose(self) -> None:
        for task, seen_to in self._late.items():
            seen_to.cancel()
            task.cancel()
        await self._direct.close()
        await self._engine.dispose()

    async def _write(self, statement: TextClause, parameters: Parameters) -> list[tuple[Any, ...]]:
        try:
            return await self._direct.execute(statement, parameters)
        except pg.Error as error:
            raise _meaning(error) from error

    async def _attempts(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        try:
            return await self._once(work)
        except DBAPIError as error:
            # The server went away under an open connection: the pool is renewed by now, a new one may work.
            if not error.connection_invalidated:
                raise _translated(error) from error
        except SQLAlchemyError as error:
            raise _translated(error) from error
        try:
            return await self._once(work)
        except SQLAlchemyError as error:
            raise _translated(error) from error

    async def _once(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        async with self._engine.connect() as connection:
            return await work(connection)


def _translated(error: SQLAlchemyError) -> Exception:
    """Our error for the database's; one that means a defect stays itself."""
    if isinstance(error, PoolTimeout):
        return Unavailable("All database connections are busy")
    if not isinstance(error, DBAPIError) or not isinstance(error.orig, pg.Error):
        return error
    meaning = _meaning(error.orig)
    return error if meaning is error.orig else meaning


def _meaning(error: pg.Error) -> Exception:
    """Our error for psycopg's; one that means a defect stays itself."""
    match error:
        case pg.LockNotAvailable():
            return LockTimeout("Another request is just writing this")
        case pg.UndefinedTable() | pg.UndefinedColumn():
            return NoSchema("The database has not got its schema yet")
        case pg.QueryCanceled():
            return Unavailable("The database is too slow")
        case pg.OperationalError() | pg.InterfaceError():
            return Unavailable("The database is not reachable")
    return error
