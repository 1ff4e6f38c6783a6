"""The real servers a benchmark runs on: those of ``DF_TEST_*`` URLs, else binaries or wheels, as in the tests."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers import postgres, redis


@dataclass(frozen=True)
class Servers:
    """Where the benchmark's own, empty database and Redis are."""

    database_url: str
    redis_url: str
    folder: Path


@contextmanager
def servers() -> Iterator[Servers]:
    """Start both, with the newest schema; stop them and forget everything afterwards."""
    with (
        tempfile.TemporaryDirectory(prefix="dreamforge-bench-") as name,
        postgres.server(Path(name) / "postgres") as (postgres_url, postgres_source),
        redis.server(Path(name) / "redis") as (redis_url, redis_source),
        postgres.fresh_database(postgres_url) as database_url,
    ):
        print(f"servers: {postgres_source}; {redis_source}")
        postgres.migrate(database_url)
        yield Servers(database_url, redis_url, Path(name))
