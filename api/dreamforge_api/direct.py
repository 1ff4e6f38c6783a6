"""The short way to Postgres, for the one statement that every accepted job costs.

SQLAlchemy's async engine hops between greenlets several times for each statement, which is more work than the rest of
a create (measured: benchmark J1). Here the same statement goes straight to psycopg. Everything else stays on the
engine.
"""

import asyncio
from collections.abc import Mapping
from functools import cache
from typing import Any, LiteralString

import psycopg
from psycopg import AsyncConnection
from sqlalchemy import TextClause
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from dreamforge.db.engine import async_options, parse_url

#: SQLSTATE class of a server that stops, crashed, or is just starting.
_SHUTDOWN = "57P"


Row = tuple[Any, ...]


class DirectConnections:
    """At most ``size`` open connections in autocommit. One that was dropped takes all idle ones with it."""

    def __init__(self, url: str, size: int) -> None:
        self._dsn = parse_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        self._options: dict[str, Any] = async_options()
        self._places = asyncio.Semaphore(size)
        self._idle: list[AsyncConnection[Any]] = []

    async def execute(self, statement: TextClause, parameters: Mapping[str, Any]) -> list[Row]:
        """Run a statement that returns rows and is right to run twice.

        Raises ``psycopg.Error``. A dropped connection is tried again on a new one.
        """
        query = _text(statement)
        async with self._places:
            connection = self._idle.pop() if self._idle else await self._connect()
            try:
                return await self._on(connection, query, parameters)
            except psycopg.OperationalError:
                if not connection.closed:
                    raise
            await self._renew()
            return await self._on(await self._connect(), query, parameters)

    async def close(self) -> None:
        await self._renew()

    async def _on(
        self, connection: AsyncConnection[Any], query: LiteralString, parameters: Mapping[str, Any]
    ) -> list[Row]:
        try:
            cursor = await connection.execute(query, parameters)
            rows: list[Row] = await cursor.fetchall()
        except psycopg.Error as error:
            if (error.sqlstate or "").startswith(_SHUTDOWN):
                connection.pgconn.finish()  # the server said good-bye; libpq may not have seen the end yet
            if not connection.closed:
                self._idle.append(connection)
            raise
        except BaseException:  # canceled in the middle: nobody knows what this connection is doing
            connection.pgconn.finish()
            raise
        self._idle.append(connection)
        return rows

    async def _connect(self) -> AsyncConnection[Any]:
        return await AsyncConnection.connect(self._dsn, autocommit=True, **self._options)

    async def _renew(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.close()


@cache
def _text(statement: TextClause) -> LiteralString:
    """The statement with psycopg's placeholders. It is SQL of our own, not a client's text."""
    dialect = PGDialect_psycopg()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves dialects untyped
    text: LiteralString = statement.compile(dialect=dialect).string
    return text
