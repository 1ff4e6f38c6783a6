"""The oracle sees what is wrong: each kind of damage is done to a finished job, found, and undone."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.faults import oracle
from tests.faults.load import Account, Promised
from tests.faults.stack import Stack

CANARY = "canary0a1b2c3d"
ONE = "job_id = (SELECT min(job_id::text)::uuid FROM artifacts)"
SAVE = (
    "CREATE TABLE saved_{0} AS SELECT * FROM {0}",
    "DELETE FROM {0}",
    "INSERT INTO {0} SELECT * FROM saved_{0}",
    "DROP TABLE saved_{0}",
)

DAMAGE = {
    "I1 canceled, nobody asked": ("jobs", "UPDATE jobs SET status = 'canceled'"),
    "I3 artifact and its events differ": ("events", f"DELETE FROM events WHERE type = 'artifact' AND {ONE}"),
    "I3 artifacts differ from completed": ("artifacts", f"DELETE FROM artifacts WHERE {ONE}"),
    "I3 object missing or other bytes": ("artifacts", f"UPDATE artifacts SET sha256 = repeat('0', 64) WHERE {ONE}"),
    "I4 not one terminal event, last": ("events", f"DELETE FROM events WHERE type = 'state' AND {ONE}"),
    "I5 past its deadline + 120 s": (
        "jobs",
        f"UPDATE jobs SET finished_at = deadline_at + interval '121 s' WHERE {ONE.replace('job_id', 'id', 1)}",
    ),
    "I6 attempts misnumbered": ("attempts", f"UPDATE attempts SET number = number + 1 WHERE {ONE}"),
    "I7 events with a gap": ("events", f"DELETE FROM events WHERE seq = 2 AND {ONE}"),
    "I8 attempt without GPU verdict": ("attempts", f"UPDATE attempts SET gpu = NULL WHERE {ONE}"),
}


@pytest.fixture(scope="module")
def finished(stack: Stack) -> Account:
    """Some jobs that ended in peace."""
    stack.client.until_ready()
    for _ in range(2):
        stack.client.render(count=2, labels={"keyless": "yes"})
    account = Account()
    assert oracle.judge(stack, account).found == {}
    return account


@contextmanager
def damaged(stack: Stack, table: str, statement: str) -> Iterator[None]:
    """The rows of ``table`` after ``statement``; as they were afterwards."""
    url = stack.settings["DF_DATABASE_URL"].replace("+psycopg", "", 1)
    save, clear, fill, drop = (text.format(table).encode() for text in SAVE)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")  # no cascades: the rows alone
        connection.execute(save)
        try:
            connection.execute(statement.encode())
            yield
        finally:
            connection.execute(clear)
            connection.execute(fill)
            connection.execute(drop)


@pytest.mark.parametrize("invariant", DAMAGE)
def test_damaged_rows_are_found(stack, finished, invariant):
    with damaged(stack, *DAMAGE[invariant]):
        assert invariant in oracle.judge(stack, finished, 0).found
    assert oracle.judge(stack, finished, 0).found == {}


def test_objects_too_many_and_too_few_are_found(stack, finished):
    (key,) = (row["key"] for row in stack.rows("SELECT min(key) AS key FROM artifacts"))
    image: Path = stack.data / "objects" / key
    beside = image.rename(image.with_name("20260101T000000Z_0_256x256_1.png"))
    found = oracle.judge(stack, finished, 0).found["I3 object missing or other bytes"]
    beside.rename(image)
    assert [text.rpartition(": ")[2] for text in found] == ["missing", f"{beside.name} has no row"]


def leaks(stack: Stack, account: Account) -> list[str]:
    return oracle.judge(stack, account, 0).found["I9 prompt or secret told"]


def test_a_prompt_in_a_log_file_is_found(stack, finished):
    log = stack.data / "logs" / "forged.ndjson"
    log.write_text(f'{{"message": "rendering {CANARY}"}}\n')
    found = leaks(stack, Account(canary=CANARY))
    log.unlink()
    assert found == ["forged.ndjson: a prompt"]


def test_the_signing_key_in_an_error_body_is_found(stack, finished):
    body = f"{{'detail': 'bad signature for {stack.settings['DF_SIGNING_KEY']}'}}"
    assert leaks(stack, Account(refusals=["nothing", body])) == ["an error body: a secret"]


def test_a_link_in_a_log_event_is_found(stack, finished):
    told = "UPDATE events SET type = 'log', message = 'GET /v1/objects/x?signature=5ec2e7' WHERE seq = 1"
    with damaged(stack, "events", told):
        assert leaks(stack, Account(signatures=["5ec2e7"])) == ["log, error or verdict of a job: a link's signature"]


def test_a_prompt_in_a_metric_is_found(stack, finished):
    """A counter beside those of the system's processes, as a careless label would make it."""
    folder = stack.data / "run" / "metrics"
    before = set(folder.iterdir())
    code = "import prometheus_client as p, sys; p.Counter('forged', 'x', ['prompt']).labels(sys.argv[1]).inc()"
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}
    subprocess.run([sys.executable, "-c", code, CANARY], env=environment, check=True)
    forged = set(folder.iterdir()) - before
    found = leaks(stack, Account(canary=CANARY))
    for path in forged:
        path.unlink()
    assert found == ["/metrics: a prompt"]


def test_a_promise_that_nobody_kept_is_found(stack, finished):
    job = Promised("01a1fd6e-9c4f-75a0-92d8-aebb8c5f6838", "a key", 1)
    assert oracle.judge(stack, Account(jobs=[job]), 0).found.keys() == {"I1 a 202 without its job", "I7 replay wrong"}
