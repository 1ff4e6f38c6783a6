"""Redis for tests: one server a session, emptied before each test that asks for it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from dreamforge.errors import ConfigurationError
from dreamforge_cli.embedded.redis import EmbeddedRedis

URL_VARIABLE = "DF_TEST_REDIS_URL"


@contextmanager
def server(folder: Path) -> Iterator[tuple[str, str]]:
    """``(url, where it came from)``."""
    if given := os.environ.get(URL_VARIABLE):
        yield given, URL_VARIABLE
        return
    embedded = EmbeddedRedis(folder)
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
        EmbeddedRedis(Path("unused"))
    except ConfigurationError as missing:
        return str(missing)
    return None


def empty(url: str) -> None:
    """Remove everything in the database the URL names."""
    client = redis.Redis.from_url(url)
    client.flushdb()
    client.close()
