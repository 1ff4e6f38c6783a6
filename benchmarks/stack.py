"""The real servers a benchmark runs on: those of ``DF_TEST_*`` URLs, else binaries or wheels, as in the tests.

Unlike the tests' PostgreSQL this one writes through to the disk, and the facts printed say so.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from dreamforge_cli.embedded.postgres import EmbeddedPostgres
from tests.servers import postgres, redis


@dataclass(frozen=True)
class Servers:
    """Where the benchmark's own, empty database and Redis are."""

    database_url: str
    redis_url: str
    folder: Path
    facts: dict[str, str] = field(default_factory=dict)


@contextmanager
def servers() -> Iterator[Servers]:
    """Start both, with the newest schema; stop them and forget everything afterwards."""
    with (
        tempfile.TemporaryDirectory(prefix="dreamforge-bench-") as name,
        _postgres(Path(name) / "postgres") as (postgres_url, postgres_source),
        redis.server(Path(name) / "redis") as (redis_url, redis_source),
        postgres.fresh_database(postgres_url) as database_url,
    ):
        postgres.migrate(database_url)
        facts = {"postgres": postgres_source, "redis": redis_source, **_durability(database_url)}
        print("; ".join(f"{key}: {value}" for key, value in facts.items()), flush=True)
        yield Servers(database_url, redis_url, Path(name), facts)


@contextmanager
def _postgres(folder: Path) -> Iterator[tuple[str, str]]:
    """The server of the test URL when there is one, else a durable one of our own."""
    if postgres.URL_VARIABLE in os.environ:
        with postgres.server(folder) as found:
            yield found
        return
    embedded = EmbeddedPostgres(folder)
    embedded.start()
    try:
        yield embedded.url, embedded.source
    finally:
        embedded.stop()


def _durability(url: str) -> dict[str, str]:
    with psycopg.connect(postgres.plain(url)) as connection:
        query = (
            "SELECT name, setting FROM pg_settings WHERE name IN ('server_version', 'fsync', 'synchronous_commit')"
        )
        return dict(connection.execute(query).fetchall())
