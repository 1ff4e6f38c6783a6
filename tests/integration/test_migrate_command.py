"""``python -m dreamforge_api.migrate`` as a Job of the cluster starts it: before its database, twice, or in vain."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dreamforge.db.engine import open_engine
from dreamforge_api import migrate
from dreamforge_cli.embedded.postgres import EmbeddedPostgres
from tests.api_server import poll
from tests.jobs import rows
from tests.servers import postgres as servers

_END_SECONDS = 120.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """One that tests may stop."""
    if missing := servers.available():
        pytest.skip(missing)
    own = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"), durable=False)
    own.start()
    yield own
    own.stop()


@pytest.fixture
def stopped(server: EmbeddedPostgres) -> EmbeddedPostgres:
    """It has an address and is not up."""
    server.stop()
    return server


def start(url: str, log: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "dreamforge_api.migrate", *arguments]
    with log.open("wb") as out:
        return subprocess.Popen(
            command, cwd=log.parent, env={"DF_DATABASE_URL": url}, stdout=out, stderr=subprocess.STDOUT
        )


def revision(url: str) -> list[dict[str, object]]:
    engine = open_engine(url)
    try:
        return rows(engine, "SELECT version_num FROM alembic_version")
    finally:
        engine.dispose()


def test_it_waits_for_a_database_that_comes_up_later(stopped: EmbeddedPostgres, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with start(stopped.url, log, f"--wait={_END_SECONDS}") as process:
        try:
            poll(lambda: "waiting for the database" in log.read_text(), "its first try", _END_SECONDS)
            stopped.start()
            assert process.wait(_END_SECONDS) == 0, log.read_text()
        finally:
            process.kill()
    assert revision(stopped.url) == [{"version_num": migrate.head()}]
    assert stopped.url.split(":")[2].split("@")[0] not in log.read_text(), "the password is in no log line"


@pytest.mark.parametrize("wait", [(), ("--wait=1",)])
def test_it_gives_up_on_a_database_that_never_comes(
    stopped: EmbeddedPostgres, tmp_path: Path, wait: tuple[str, ...]
) -> None:
    log = tmp_path / "log"
    with start(stopped.url, log, *wait) as process:
        try:
            assert process.wait(_END_SECONDS) == 3
        finally:
            process.kill()
    assert log.read_text().splitlines()[-1].startswith("DF_DATABASE_URL: the database can't be reached")


def test_two_at_once_are_one(empty_database_url: str, tmp_path: Path) -> None:
    both = [start(empty_database_url, tmp_path / name, "--wait=30") for name in ("one", "other")]
    try:
        assert [process.wait(_END_SECONDS) for process in both] == [0, 0]
    finally:
        for process in both:
            process.kill()
            process.wait()
    assert revision(empty_database_url) == [{"version_num": migrate.head()}]
