"""PostgreSQL for tests: one server a session, one migrated template, one fresh database a module."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

from dreamforge.errors import ConfigurationError
from dreamforge_api import migrate as schema
from dreamforge_cli.embedded.postgres import EmbeddedPostgres

URL_VARIABLE = "DF_TEST_DATABASE_URL"


def plain(url: str) -> str:
    """A SQLAlchemy URL as psycopg itself wants it."""
    return url.replace("+psycopg", "", 1)


def named(url: str, database: str) -> str:
    """The same server, another database."""
    head, _, query = url.partition("?")
    return head.rsplit("/", 1)[0] + f"/{database}" + (f"?{query}" if query else "")


@contextmanager
def server(folder: Path) -> Iterator[tuple[str, str]]:
    """``(url, where it came from)`` of a server whose user may create databases."""
    if given := os.environ.get(URL_VARIABLE):
        yield given, URL_VARIABLE
        return
    embedded = EmbeddedPostgres(folder, durable=False)
    embedded.start()
    try:
        yield embedded.url, embedded.source
    finally:
        embedded.stop()


def available() -> str | None:
    """Why there is no server, or ``None``."""
    if os.environ.get(URL_VARIABLE):
        return None
    try:
        EmbeddedPostgres(Path("unused"))
    except ConfigurationError as missing:
        return str(missing)
    return None


def migrate(url: str) -> None:
    """Bring a database to the newest schema, by the project's own migrations."""
    schema.upgrade(url)


@contextmanager
def fresh_database(url: str, template: str = "template1") -> Iterator[str]:
    """A new database, a copy of ``template``; dropped at the end even when connections are left."""
    name = f"df_test_{secrets.token_hex(6)}"
    _run(url, sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
    try:
        yield named(url, name)
    finally:
        _run(url, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _run(url: str, statement: sql.Composed) -> None:
    with psycopg.connect(plain(url), autocommit=True) as connection:
        connection.execute(statement)
