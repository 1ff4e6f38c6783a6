"""Engines with bounded waits: a dead database is an error within two seconds, never a hang."""

from pydantic_core import from_json
from sqlalchemy import URL, Engine, create_engine, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from dreamforge.errors import ConfigurationError

#: Seconds to wait for a connection from the pool, and for a new one to the server.
POOL_TIMEOUT = 1.5
CONNECT_TIMEOUT = 2


def parse_url(url: str) -> URL:
    """A psycopg 3 URL; plain ``postgres://`` and ``postgresql://`` are understood as such."""
    try:
        parsed = make_url(url.replace("postgres://", "postgresql://", 1))
    except Exception as error:
        raise ConfigurationError("DF_DATABASE_URL: not a database URL") from error
    if parsed.get_backend_name() != "postgresql":
        raise ConfigurationError("DF_DATABASE_URL: must start with postgresql://")
    return parsed.set(drivername="postgresql+psycopg")


def _options(statement_timeout_ms: int, lock_timeout_ms: int) -> dict[str, object]:
    return {
        "connect_timeout": CONNECT_TIMEOUT,
        # A half-dead network must not hold a request: the kernel gives the connection up.
        "tcp_user_timeout": 5000,
        "options": f"-c statement_timeout={statement_timeout_ms} -c lock_timeout={lock_timeout_ms} -c timezone=UTC",
    }


def open_engine(url: str, *, pool_size: int = 4, statement_timeout_ms: int = 30_000) -> Engine:
    """A plain engine for worker processes, which try again by themselves when a connection turns out dead."""
    return create_engine(
        parse_url(url),
        pool_size=pool_size,
        max_overflow=0,
        hide_parameters=True,  # an error's text may reach a log, and prompts are parameters
        pool_timeout=POOL_TIMEOUT,
        connect_args=_options(statement_timeout_ms, lock_timeout_ms=10_000),
    )


def async_options(statement_timeout_ms: int = 5_000) -> dict[str, object]:
    """How a connection of the API is opened, through SQLAlchemy or without it."""
    # A create that waits this long for another one with the same Idempotency-Key answers 409.
    return _options(statement_timeout_ms, lock_timeout_ms=1_000)


def open_async_engine(url: str, *, pool_size: int = 10, statement_timeout_ms: int = 5_000) -> AsyncEngine:
    """An async engine for the API. No ping before use: a request that meets a dead connection tries again after
    the whole pool was renewed, which is cheaper than a round trip for every request. Autocommit saves another two:
    every statement of the API is a transaction of its own."""
    return create_async_engine(
        parse_url(url),
        isolation_level="AUTOCOMMIT",
        pool_size=pool_size,
        max_overflow=0,
        hide_parameters=True,  # an error's text may reach a log, and prompts are parameters
        pool_timeout=POOL_TIMEOUT,
        connect_args=async_options(statement_timeout_ms),
        json_deserializer=from_json,  # half the time of the standard library's, for every event of a replay
    )
