"""Dead letters from refusal to settlement: real Postgres, real Redis, the real worker process, the real command."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from redis import Redis
from sqlalchemy import Engine

from dreamforge.db.engine import open_engine
from dreamforge.errors import ErrorCode
from dreamforge.events import EventBatch, Failure, Outcome
from dreamforge.transport import names
from dreamforge.transport.deadletters import DeadBatches, Fate
from dreamforge.transport.redis import RedisEventSink
from dreamforge_api.worker.ingest import ingest_batch, new_id
from dreamforge_api.worker.retry import RetryPolicy
from dreamforge_cli.deadletters import open_letters
from tests.jobs import Runner, create, rows
from tests.servers.stack import clean_environment, command, until
from tests.servers.worker import worker

EAGER = RetryPolicy(first_delay=0.0, jitter=0.0)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    opened = open_engine(database_url, pool_size=4)
    yield opened
    opened.dispose()


@pytest.fixture
def letters(redis_db: str) -> Iterator[DeadBatches]:
    opened = DeadBatches(redis_db)
    yield opened
    opened.close()


def send(redis_url: str, *batches: EventBatch) -> None:
    sink = RedisEventSink(redis_url)
    for batch in batches:
        sink.send(batch)
    sink.close()


def headless(job_id: UUID) -> EventBatch:
    """A batch that begins an attempt without ``attempt.started``: refused for good."""
    runner = Runner(job_id, f"run-{new_id().hex[:8]}")
    return runner.batch(runner.item(0))


def kill(engine: Engine, job_id: UUID, code: ErrorCode = ErrorCode.HOST_OOM, times: int = 2) -> None:
    """The job ends its runner ``times`` times."""
    for number in range(times):
        runner = Runner(job_id, f"run-{number}")
        failure = Failure(code=code, message="137")
        ingest_batch(engine, runner.batch(runner.started(), runner.finished(Outcome.FAILED, failure)), EAGER)


def dlq(database_url: str, redis_url: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = clean_environment(DF_DATABASE_URL=database_url, DF_REDIS_URL=redis_url)
    return subprocess.run(command("dlq", *arguments), capture_output=True, text=True, timeout=60, env=environment)


def answer(done: "subprocess.CompletedProcess[str]") -> dict[str, object]:
    assert done.stdout, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_a_refused_batch_is_listed_with_its_reason_and_refused_again_until_dropped(
    tmp_path: Path, engine: Engine, letters: DeadBatches, database_url: str, redis_db: str
) -> None:
    job_id = create(engine)
    with worker(tmp_path, database_url, redis_db):
        send(redis_db, headless(job_id))
        [letter] = until(lambda: letters.list(10), what="the dead letter")
        assert "does not begin with attempt.started" in letter.reason
        assert (letter.job_id, letter.events) == (str(job_id), {"item.started": 1})
        again = letters.requeue(letter, 60)
        assert again is not None
        assert again.fate is Fate.REFUSED_AGAIN
        assert "does not begin with attempt.started" in again.detail
        assert [found.id for found in letters.list(10)] == [letter.id]
    assert letters.drop(letter.id)
    assert letters.list(10) == []
    assert not letters.drop(letter.id)
    assert letters.requeue(letter, 0) is None
    assert rows(engine, "SELECT 1 FROM events WHERE job_id = :id", id=job_id) == []


def test_once_the_cause_is_mended_a_requeued_batch_goes_in(
    tmp_path: Path, engine: Engine, letters: DeadBatches, database_url: str, redis_db: str
) -> None:
    job_id = create(engine)
    runner = Runner(job_id, "run-mended")
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE attempts ADD CONSTRAINT broken CHECK (runner <> 'host-1') NOT VALID")
    with worker(tmp_path, database_url, redis_db):
        send(redis_db, runner.batch(runner.started(), runner.item(0)))
        [letter] = until(lambda: letters.list(10), what="the dead letter")
        assert "broken" in letter.reason
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE attempts DROP CONSTRAINT broken")
        done = dlq(database_url, redis_db, "requeue", letter.id, "--wait", "50", "--json")
        assert done.returncode == 0
        assert answer(done)["answer"] == "committed: its events are in"
    assert letters.list(10) == []
    assert rows(engine, "SELECT status FROM jobs WHERE id = :id", id=job_id) == [{"status": "running"}]


def test_a_batch_of_a_job_that_is_over_says_so(
    tmp_path: Path, engine: Engine, letters: DeadBatches, database_url: str, redis_db: str
) -> None:
    job_id = create(engine)
    with worker(tmp_path, database_url, redis_db):
        send(redis_db, headless(job_id))
        [letter] = until(lambda: letters.list(10), what="the dead letter")
        kill(engine, job_id)
        done = dlq(database_url, redis_db, "requeue", letter.id, "--wait", "50")
    assert done.returncode == 0
    assert done.stdout.startswith("refused_terminal: the job is over already")
    assert letters.list(10) == []


def test_a_gap_is_no_silent_drop(
    tmp_path: Path, engine: Engine, letters: DeadBatches, database_url: str, redis_db: str
) -> None:
    """Put back alone, a later batch would be acknowledged and forgotten: it is filed again instead."""
    job_id = create(engine)
    runner = Runner(job_id, "run-gap")
    first, orphan = runner.batch(runner.started()), runner.batch(runner.item(0), prev_seq=5)
    ingest_batch(engine, first, EAGER)
    send(redis_db, orphan)
    # As if ingest had refused it: taken from the queue and filed with the dead.
    _bury(redis_db)
    [letter] = letters.list(10)
    with worker(tmp_path, database_url, redis_db):
        done = letters.requeue(letter, 60)
    assert done is not None
    assert done.fate is Fate.REFUSED_AGAIN
    assert done.detail.startswith("gap:")
    [again] = letters.list(10)
    assert (again.id, again.reason) == (letter.id, done.detail)


def _bury(redis_url: str) -> None:
    """Move what waits on the queue to the dead."""
    client = Redis.from_url(redis_url)
    while isinstance(rq_id := client.lpop(f"rq:queue:{names.EVENTS_QUEUE}"), bytes):
        client.zadd(f"rq:failed:{names.EVENTS_QUEUE}", {rq_id: 4_000_000_000})
    client.close()


def test_what_a_prompt_stands_in_never_shows(
    tmp_path: Path, engine: Engine, letters: DeadBatches, database_url: str, redis_db: str
) -> None:
    job_id = create(engine)
    runner = Runner(job_id)
    started = runner.started()
    stored = runner.stored(0).model_copy(update={"metadata": {"prompt": "xyzzy-secret"}, "item_index": 77})
    with worker(tmp_path, database_url, redis_db):
        send(redis_db, runner.batch(started, stored))
        [letter] = until(lambda: letters.list(10), what="the dead letter")
        shown = dlq(database_url, redis_db, "show", letter.id, "--json")
    assert "item 77" in str(answer(shown)["reason"])
    assert "xyzzy" not in shown.stdout
    assert "xyzzy" not in (tmp_path / "worker.log").read_text()


def test_a_job_that_kills_its_runner_twice_is_requeued_as_a_new_job(
    engine: Engine, database_url: str, redis_db: str
) -> None:
    job_id = create(engine, count=2, steps=7)
    kill(engine, job_id)
    [job] = rows(engine, "SELECT status, error_code FROM jobs WHERE id = :id", id=job_id)
    assert job == {"status": "failed", "error_code": "host_oom"}
    shown = answer(dlq(database_url, redis_db, "show", str(job_id), "--json"))
    assert shown["reason"] == "host_oom: 137"
    assert isinstance(shown["attempts"], list)
    assert [attempt["error_code"] for attempt in shown["attempts"]] == ["host_oom", "host_oom"]
    done = answer(dlq(database_url, redis_db, "requeue", str(job_id), "--json"))
    new = rows(engine, "SELECT * FROM jobs WHERE id = :id", id=done["requeued_as"])[0]
    old = rows(engine, "SELECT * FROM jobs WHERE id = :id", id=job_id)[0]
    assert new["labels"] == {"requeued-from": str(job_id)}
    assert new["status"] == "queued"
    for same in ("params", "count", "model_id", "provider", "type", "owner"):
        assert new[same] == old[same]
    assert new["deadline_at"] - new["created_at"] == old["deadline_at"] - old["created_at"]
    assert rows(engine, "SELECT name FROM steps WHERE job_id = :id", id=new["id"]) == [{"name": "generate"}]
    twice = dlq(database_url, redis_db, "requeue", str(job_id))
    assert twice.returncode == 2
    assert "settled already" in twice.stderr


def test_what_is_no_dead_letter_is_refused(engine: Engine, database_url: str, redis_db: str) -> None:
    live, other, once = create(engine), create(engine), create(engine)
    kill(engine, other, ErrorCode.GPU_OOM, times=1)
    kill(engine, once, ErrorCode.RUNNER_LOST, times=1)
    opened = open_letters(database_url, redis_db)
    for letter_id in (str(live), str(other), str(once), "nonsense", "no-uuid", "0" * 32):
        assert (opened.show(letter_id), opened.requeue(letter_id, 0), opened.drop(letter_id)) == (None, None, False)
    opened.close()
    for word in ("show", "requeue", "drop"):
        assert dlq(database_url, redis_db, word, str(live)).returncode == 2, word
    jobs = rows(engine, "SELECT count(*) AS n FROM jobs WHERE labels ? 'requeued-from' AND status = 'failed'")
    assert jobs == [{"n": 0}]


def test_list_shows_both_kinds_and_drop_settles_a_job(
    tmp_path: Path, engine: Engine, letters: DeadBatches, database_url: str, redis_db: str
) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("TRUNCATE jobs CASCADE")
    dead, live = create(engine), create(engine)
    kill(engine, dead)
    with worker(tmp_path, database_url, redis_db):
        send(redis_db, headless(live))
        until(lambda: letters.list(10), what="the dead letter")
    listed = answer(dlq(database_url, redis_db, "list", "--json"))["items"]
    assert isinstance(listed, list)
    assert [(letter["kind"], letter["job_id"]) for letter in listed] == [("job", str(dead)), ("batch", str(live))]
    table = dlq(database_url, redis_db, "list").stdout
    assert all(letter["id"] in table for letter in listed)
    assert dlq(database_url, redis_db, "drop", str(dead)).returncode == 0
    left = answer(dlq(database_url, redis_db, "list", "--json"))["items"]
    assert isinstance(left, list)
    assert [letter["kind"] for letter in left] == ["batch"]
    assert rows(engine, "SELECT status FROM jobs WHERE id = :id", id=dead) == [{"status": "failed"}]


def test_servers_that_are_away_are_status_three(tmp_path: Path, database_url: str, redis_db: str) -> None:
    nowhere = "redis://127.0.0.1:1/0"
    assert dlq(database_url, nowhere, "list").returncode == 3
    assert dlq("postgresql://u@127.0.0.1:1/x", redis_db, "list").returncode == 3
    bare = subprocess.run(
        command("dlq", "list"), capture_output=True, text=True, timeout=60, cwd=tmp_path, env=clean_environment()
    )
    assert bare.returncode == 2
    assert "DF_DATABASE_URL" in bare.stderr


def test_the_folder_of_a_running_stack_leads_to_its_servers(stack) -> None:
    kept = stack.data / "run" / "servers.json"
    assert os.stat(kept).st_mode & 0o777 == 0o600
    done = subprocess.run(
        command("dlq", "list", "--data", stack.data, "--json"),
        capture_output=True,
        text=True,
        timeout=60,
        env=clean_environment(),
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"items": []}
