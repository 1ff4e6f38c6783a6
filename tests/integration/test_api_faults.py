"""Postgres or Redis gone at start or midway: quick 503s, recovery without a restart, nothing accepted is lost."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psycopg
import pytest

from dreamforge_cli.embedded.postgres import EmbeddedPostgres
from dreamforge_cli.embedded.redis import EmbeddedRedis
from tests.api_server import SIGNING_KEY, Api, poll
from tests.servers import postgres as servers

BODY = {"prompt": "a lighthouse"}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """A server of its own, migrated, that the test may stop."""
    if missing := servers.available():
        pytest.skip(missing)
    server = EmbeddedPostgres(tmp_path / "postgres", durable=False)  # it is stopped, the machine is not
    server.start()
    servers.migrate(server.url)
    yield server
    server.stop()


def _refused(api: Api, method: str, path: str) -> None:
    began = time.monotonic()
    answer = api.client.request(method, path, json=BODY if method == "POST" else None)
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable"), answer.text
    assert int(answer.headers["retry-after"]) >= 1
    assert time.monotonic() - began < 4, "the answer is due in two seconds"


def test_postgres_stops_and_comes_back(tmp_path: Path, database: EmbeddedPostgres, redis_url: str) -> None:
    with Api(tmp_path, database.url, redis_url) as api:
        made = api.create()
        database.stop()
        for method, path in (
            ("POST", "/v1/jobs"),
            ("GET", "/v1/jobs"),
            ("GET", made["urls"]["self"]),
            ("GET", made["urls"]["logs"]),
            ("GET", made["urls"]["events"]),
            ("GET", made["urls"]["artifacts"]),
            ("POST", made["urls"]["cancel"]),
        ):
            _refused(api, method, path)
        assert api.client.get("/healthz").status_code == 200
        ready = api.client.get("/readyz")
        assert (ready.status_code, ready.json()["checks"]["database"]["ok"]) == (503, False)
        assert 'dreamforge_dependency_up{name="database"} 0' in api.client.get("/metrics").text
        database.start()
        poll(lambda: api.client.post("/v1/jobs", json=BODY).status_code == 202, "recovery")
        assert api.client.get(made["urls"]["self"]).json()["id"] == made["id"]
        poll(lambda: api.client.get("/readyz").status_code == 200, "readiness")


def test_a_restart_of_postgres_costs_no_request_and_no_accepted_job(
    tmp_path: Path, database: EmbeddedPostgres, redis_url: str
) -> None:
    """Open connections are all dead after it; a request draws a new one instead of failing."""
    with Api(tmp_path, database.url, redis_url) as api:
        accepted = [api.create()["id"]]
        with ThreadPoolExecutor(8) as pool:
            accepted += [job["id"] for job in pool.map(lambda _: api.create(), range(20))]
        database.stop()
        database.start()
        answers = [api.client.post("/v1/jobs", json=BODY) for _ in range(12)]
        assert [answer.status_code for answer in answers] == [202] * 12
        accepted += [answer.json()["id"] for answer in answers]
        listed = {job["id"] for job in api.client.get("/v1/jobs?limit=200").json()["items"]}
        assert listed == set(accepted), "each accepted job exists once, and no other"


def test_a_silent_postgres_is_503_in_time_and_recovers(
    tmp_path: Path, database: EmbeddedPostgres, redis_url: str
) -> None:
    with Api(tmp_path, database.url, redis_url) as api:
        api.create()
        backends = _backends(database)
        for pid in backends:
            os.kill(pid, signal.SIGSTOP)
        try:
            _refused(api, "POST", "/v1/jobs")
            _refused(api, "GET", "/v1/jobs")
        finally:
            for pid in reversed(backends):
                os.kill(pid, signal.SIGCONT)
        poll(lambda: api.client.post("/v1/jobs", json=BODY).status_code == 202, "recovery")


def _backends(database: EmbeddedPostgres) -> list[int]:
    """The server and its children; the server first, so that it makes no new ones."""
    pid = int((database.home / "data" / "postmaster.pid").read_text().split()[0])
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def test_a_job_that_another_process_holds_is_503_in_time(tmp_path: Path, database_url: str, redis_url: str) -> None:
    """As when a worker is frozen, or a server's process outlives its client, in the middle of a transaction."""
    with (
        Api(tmp_path, database_url, redis_url) as api,
        psycopg.connect(database_url.replace("+psycopg", "")) as other,
    ):
        made = api.create()
        other.execute("SELECT FROM jobs WHERE id = %s FOR UPDATE", (made["id"],))
        _refused(api, "POST", made["urls"]["cancel"])
        assert api.client.get(made["urls"]["self"]).status_code == 200

        other.rollback()
        assert api.client.post(made["urls"]["cancel"]).status_code == 202


def test_everything_away_at_start_and_there_later(tmp_path: Path, database: EmbeddedPostgres) -> None:
    redis = EmbeddedRedis(tmp_path / "redis")
    redis.start()
    url, redis_url = database.url, redis.url
    database.stop()
    redis.stop()
    with Api(tmp_path, url, redis_url) as api:
        _refused(api, "POST", "/v1/jobs")
        assert api.client.get("/readyz").status_code == 503
        database.start()
        poll(lambda: api.client.post("/v1/jobs", json=BODY).status_code == 202, "the database")
        assert api.client.get("/readyz").json()["checks"]["redis"]["ok"] is False
        redis.start()
        poll(lambda: api.client.get("/readyz").status_code == 200, "Redis")
    redis.stop()


def test_a_database_without_a_schema_is_503_until_it_is_migrated(
    tmp_path: Path, empty_database_url: str, redis_url: str
) -> None:
    with Api(tmp_path, empty_database_url, redis_url) as api:
        _refused(api, "POST", "/v1/jobs")
        assert api.client.get("/readyz").json()["checks"]["schema"]["ok"] is False
        servers.migrate(empty_database_url)
        poll(lambda: api.client.post("/v1/jobs", json=BODY).status_code == 202, "the schema")
        poll(lambda: api.client.get("/readyz").status_code == 200, "readiness")


def test_a_schema_that_a_newer_release_made_is_served_and_an_older_one_is_not(
    tmp_path: Path, postgres_url: str, database_template: str, redis_url: str
) -> None:
    with (
        servers.fresh_database(postgres_url, database_template) as url,
        Api(tmp_path, url, redis_url) as api,
        psycopg.connect(servers.plain(url), autocommit=True) as database,
    ):
        for revision, ok in (("9999", True), ("0001", False)):
            database.execute("UPDATE alembic_version SET version_num = %s", (revision,))
            schema = poll(
                lambda revision=revision: (
                    (found := api.client.get("/readyz").json()["checks"]["schema"])
                    and revision in found["detail"]
                    and found
                ),
                f"revision {revision}",
            )
            assert schema["ok"] is ok


def test_a_store_that_can_not_be_written_is_not_ready(tmp_path: Path, database_url: str, redis_url: str) -> None:
    blocked = tmp_path / "a-file"
    blocked.write_text("")
    with Api(tmp_path, database_url, redis_url, DF_STORE_ROOT=str(blocked)) as api:
        ready = api.client.get("/readyz")
        assert (ready.status_code, ready.json()["checks"]["store"]["ok"]) == (503, False)
        assert api.client.post("/v1/jobs", json=BODY).status_code == 202


def test_a_wrong_setting_stops_the_process_with_one_line(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DF_")}
    environment |= {"DF_DATABASE_URL": "postgresql://u@127.0.0.1/x", "DF_SIGNING_KEY": SIGNING_KEY}
    command = [sys.executable, "-m", "dreamforge_api", "--check-settings"]

    def run(**more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, env=environment | more, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
        )

    wrong = run(DF_API_PORT="http")
    assert (wrong.returncode, wrong.stderr) == (2, "DF_API_PORT: must be a whole number (got 'http')\n")
    right = run()
    assert (right.returncode, right.stderr) == (0, "")


def test_a_request_in_flight_ends_before_the_process_does(tmp_path: Path, database_url: str, redis_url: str) -> None:
    with Api(tmp_path, database_url, redis_url) as api:
        with ThreadPoolExecutor(4) as pool:
            posting = [pool.submit(_post, api.url) for _ in range(4)]
            api.stop()
            outcomes = [one.result() for one in posting]
        assert all(outcome in (202, None) for outcome in outcomes)
        assert api.process is not None
        assert api.process.returncode == 0


def _post(url: str) -> int | None:
    """The status, or ``None`` when the server was gone already."""
    try:
        return httpx.post(f"{url}/v1/jobs", json=BODY, timeout=10).status_code
    except httpx.TransportError:
        return None
