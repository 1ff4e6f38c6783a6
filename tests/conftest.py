"""Fixtures for every tier: real servers, and a closing summary of what ran and what could not."""

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_socket
from _pytest.terminal import TerminalReporter
from hypothesis import HealthCheck, settings

from tests.servers import postgres, redis, s3

_TESTS = Path(__file__).parent
_SOURCES = pytest.StashKey[dict[str, str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_SOURCES] = {}
    # On a busy machine any example may take long.
    settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("patient")
    # A shell that starts tests in the background has them ignore SIGINT, and whatever they start would as well.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Unit tests reach nothing: their sockets are closed (event loops keep their own socket pair)."""
    if _tier(item.path) == "unit":
        pytest_socket.disable_socket(allow_unix_socket=True)


def pytest_runtest_teardown(item: pytest.Item) -> None:
    if _tier(item.path) == "unit":
        pytest_socket.enable_socket()


@pytest.fixture(scope="session")
def used(pytestconfig: pytest.Config) -> dict[str, str]:
    """Servers and where they came from; printed when all tests have run."""
    return pytestconfig.stash[_SOURCES]


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[str]:
    """A PostgreSQL server (SQLAlchemy URL) whose user may create databases."""
    if missing := postgres.available():
        pytest.skip(missing)
    with postgres.server(tmp_path_factory.mktemp("postgres")) as (url, source):
        pytestconfig.stash[_SOURCES]["PostgreSQL"] = source
        yield url


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[str]:
    """A Redis server that tests may empty."""
    if missing := redis.available():
        pytest.skip(missing)
    with redis.server(tmp_path_factory.mktemp("redis")) as (url, source):
        pytestconfig.stash[_SOURCES]["Redis"] = source
        yield url


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[s3.S3Server]:
    """An S3-compatible server; ``s3_server.location()`` names a bucket that no other test uses."""
    if missing := s3.available():
        pytest.skip(missing)
    with s3.server(tmp_path_factory.mktemp("s3")) as (server, source):
        pytestconfig.stash[_SOURCES]["S3"] = source
        yield server


@pytest.fixture(scope="session")
def database_template(postgres_url: str) -> Iterator[str]:
    """The name of a database with the newest schema and no rows; nothing stays connected to it."""
    with postgres.fresh_database(postgres_url) as url:
        postgres.migrate(url)
        yield url.rsplit("/", 1)[1].partition("?")[0]


@pytest.fixture(scope="module")
def database_url(postgres_url: str, database_template: str) -> Iterator[str]:
    """A database with the newest schema, fresh for each test module (SQLAlchemy URL, driver psycopg)."""
    with postgres.fresh_database(postgres_url, database_template) as url:
        yield url


@pytest.fixture
def empty_database_url(postgres_url: str) -> Iterator[str]:
    """A database without any table."""
    with postgres.fresh_database(postgres_url) as url:
        yield url


@pytest.fixture
def redis_db(redis_url: str) -> str:
    """The URL of a Redis that is empty when the test begins."""
    redis.empty(redis_url)
    return redis_url


def pytest_terminal_summary(terminalreporter: TerminalReporter, config: pytest.Config) -> None:
    """Say which tiers ran on which servers, and what this machine could not run and why."""
    ran: Counter[str] = Counter()
    skipped: Counter[tuple[str, str]] = Counter()
    for outcome in ("passed", "failed", "error", "xfailed"):
        for report in terminalreporter.stats.get(outcome, []):
            ran[_tier(Path(report.nodeid.partition("::")[0]))] += 1
    for report in terminalreporter.stats.get("skipped", []):
        if isinstance(report.longrepr, tuple):
            skipped[_tier(Path(report.nodeid.partition("::")[0])), str(report.longrepr[2])] += 1
    terminalreporter.section("tiers")
    for tier, count in sorted(ran.items()):
        terminalreporter.line(f"ran      {tier}: {count} tests")
    for server, source in sorted(config.stash[_SOURCES].items()):
        terminalreporter.line(f"used     {server}: {source}")
    for (tier, reason), count in sorted(skipped.items()):
        terminalreporter.line(f"skipped  {tier}: {count} tests: {reason.removeprefix('Skipped: ')}")


def _tier(path: Path) -> str:
    """The first folder below ``tests``: unit, contract, integration, ..."""
    parts = path.relative_to(_TESTS).parts if path.is_relative_to(_TESTS) else path.parts
    return parts[1] if len(parts) > 1 and parts[0] == _TESTS.name else parts[0]
