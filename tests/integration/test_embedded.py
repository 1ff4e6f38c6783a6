"""The embedded servers: real binaries, in folders only root or their owner can enter."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from dreamforge.errors import ConfigurationError
from dreamforge_cli.embedded.binaries import find_postgres
from dreamforge_cli.embedded.launch import launch
from dreamforge_cli.embedded.postgres import EmbeddedPostgres
from dreamforge_cli.embedded.redis import EmbeddedRedis
from dreamforge_cli.embedded.server import EmbeddedServer
from tests.processes import gone
from tests.servers.postgres import plain

KINDS = pytest.mark.parametrize("kind", [EmbeddedPostgres, EmbeddedRedis], ids=["postgres", "redis"])

ORPHAN_MAKER = """
import os, signal, sys
from pathlib import Path
from {module} import {cls}
server = {cls}(Path(sys.argv[1]))
server.start()
print(server.pid, flush=True)
signal.pause()
"""


def until(condition: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def write(server: EmbeddedServer, value: str) -> None:
    if isinstance(server, EmbeddedPostgres):
        with psycopg.connect(plain(server.url)) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS t (v text)")
            connection.execute("INSERT INTO t VALUES (%s)", (value,))
    else:
        with redis.Redis.from_url(server.url) as client:
            client.set("t", value)


def read(server: EmbeddedServer) -> str:
    if isinstance(server, EmbeddedPostgres):
        with psycopg.connect(plain(server.url)) as connection:
            return str(connection.execute("SELECT v FROM t").fetchall()[0][0])
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        return str(client.get("t"))


@KINDS
def test_what_was_written_is_there_after_a_restart(kind, tmp_path):
    first = kind(tmp_path / "home")
    first.start()
    pid = first.pid
    try:
        write(first, "kept")
    finally:
        first.stop()
    assert gone(pid)
    assert not first.ready()
    second = kind(tmp_path / "home")
    second.start()
    try:
        assert read(second) == "kept"
    finally:
        second.stop()


@KINDS
def test_kill_dash_nine_is_survived(kind, tmp_path):
    server = kind(tmp_path / "home")
    server.start()
    write(server, "kept")
    if kind is EmbeddedRedis:  # appendfsync everysec is about power cuts; the write is with the kernel at once
        assert read(server) == "kept"
    os.kill(server.pid, signal.SIGKILL)
    assert until(lambda: not server.ready())
    server.stop()
    server.start()
    try:
        assert read(server) == "kept"
    finally:
        server.stop()


def test_a_killed_postgres_starts_again_although_a_part_of_it_lives_on(tmp_path):
    server = EmbeddedPostgres(tmp_path / "home", durable=False)
    server.start()
    main = psutil.Process(server.pid)
    assert until(lambda: len(main.children()) > 2)
    slow = main.children()
    for process in slow:
        with contextlib.suppress(psutil.NoSuchProcess):  # the one that served the first question
            process.suspend()
    main.kill()
    server.stop()
    try:
        server.start()
        write(server, "works")
    finally:
        server.stop()
        for process in slow:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


@KINDS
def test_parent_folders_are_left_as_they_were(kind, tmp_path):
    tmp_path.chmod(0o700)
    before = [(p, p.stat().st_mode, p.stat().st_uid) for p in tmp_path.parents]
    server = kind(tmp_path / "a" / "home")
    server.start()
    server.stop()
    assert [(p, p.stat().st_mode, p.stat().st_uid) for p in tmp_path.parents] == before
    assert tmp_path.stat().st_mode & 0o777 == 0o700


@KINDS
def test_the_password_is_needed_and_hidden(kind, tmp_path):
    server = kind(tmp_path / "home")
    server.start()
    try:
        secret = (tmp_path / "home" / "password").read_text()
        assert (tmp_path / "home" / "password").stat().st_mode & 0o777 == 0o600
        assert secret in server.url
        wrong = server.url.replace(secret, "guess")
        if kind is EmbeddedPostgres:
            with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                psycopg.connect(plain(wrong))
        else:
            with pytest.raises(redis.AuthenticationError), redis.Redis.from_url(wrong) as client:
                client.ping()
        assert secret not in " ".join(psutil.Process(server.pid).cmdline())
        assert {c.laddr.ip for c in psutil.Process(server.pid).net_connections("inet")} == {"127.0.0.1"}
    finally:
        server.stop()


def _orphan(kind: type[EmbeddedServer], home: Path) -> tuple[subprocess.Popen[str], int]:
    code = ORPHAN_MAKER.format(module=kind.__module__, cls=kind.__name__)
    parent = subprocess.Popen([sys.executable, "-c", code, str(home)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.stdout.close()
    return parent, pid


@KINDS
@pytest.mark.skipif(not Path("/proc").exists(), reason="only Linux tells a child of its parent's death")
def test_a_killed_parent_takes_the_server_along(kind, tmp_path):
    if launch(["true"], death_signal=signal.SIGTERM).argv == ["true"]:
        pytest.skip("setpriv is not here or may not set a parent-death signal")
    parent, pid = _orphan(kind, tmp_path / "home")
    parent.kill()
    parent.wait()
    assert until(lambda: gone(pid))


@KINDS
def test_an_orphan_is_stopped_before_a_new_start(kind, tmp_path, monkeypatch):
    orphan = kind(tmp_path / "home")
    orphan.start()
    write(orphan, "kept")
    pid = orphan.pid
    server = kind(tmp_path / "home")
    server.start()
    try:
        orphan.stop()
        assert gone(pid)
        assert server.pid != pid
        assert read(server) == "kept"
    finally:
        server.stop()


def test_a_pid_that_is_someone_else_is_left_alone(tmp_path):
    server = EmbeddedPostgres(tmp_path / "home")
    server.start()
    server.stop()
    bystander = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    try:
        (tmp_path / "home" / "data" / "postmaster.pid").write_text(f"{bystander.pid}\n{tmp_path}\n")
        server.prepare()
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_an_interrupted_initdb_is_not_taken_for_a_cluster(tmp_path):
    draft = tmp_path / "home" / "data.new"
    draft.mkdir(parents=True)
    (draft / "PG_VERSION").write_text("15\n")
    server = EmbeddedPostgres(tmp_path / "home", durable=False)
    server.start()
    server.stop()
    assert not draft.exists()


def test_a_data_folder_asks_for_its_own_version(tmp_path):
    data = tmp_path / "home" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("9\n")
    with pytest.raises(ConfigurationError, match=r"PostgreSQL 9 .*not found.*DF_DATABASE_URL"):
        EmbeddedPostgres(tmp_path / "home")


def test_the_wheel_serves_when_nothing_is_installed(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("dreamforge_cli.embedded.binaries._POSTGRES_PLACES", ())
    found = find_postgres()
    assert "wheel" in found.source
    monkeypatch.undo()
    server = EmbeddedPostgres(tmp_path / "home", binaries=found, durable=False)
    server.start()
    try:
        with psycopg.connect(plain(server.url)) as connection:
            row = connection.execute("SHOW server_version_num").fetchone()
        assert row
        assert int(row[0]) // 10000 == found.major
    finally:
        server.stop()


def test_nothing_found_says_what_to_do(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("dreamforge_cli.embedded.binaries._POSTGRES_PLACES", ())
    monkeypatch.setattr("dreamforge_cli.embedded.binaries._wheel", lambda package: None)
    with pytest.raises(ConfigurationError, match="DF_DATABASE_URL"):
        find_postgres()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root must change the user")
def test_root_without_setpriv_runs_postgres_where_its_user_can_go(monkeypatch):
    monkeypatch.setattr("dreamforge_cli.embedded.launch._works", lambda user=None: False)
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedPostgres(Path(folder) / "home", durable=False)
        with pytest.raises(ConfigurationError, match=re.escape(folder)):
            server.start()
        Path(folder).chmod(0o755)
        server.start()
        try:
            assert server.pid
            assert psutil.Process(server.pid).username() != "root"
            write(server, "kept")
            assert read(server) == "kept"
        finally:
            server.stop()


def test_a_database_of_a_module_is_its_own(postgres_url, database_url, redis_db):
    with psycopg.connect(plain(database_url)) as connection:
        row = connection.execute("SELECT current_database()").fetchone()
    assert row
    assert row[0].startswith("df_test_")
    assert database_url != postgres_url
    with redis.Redis.from_url(redis_db) as client:
        assert client.dbsize() == 0
