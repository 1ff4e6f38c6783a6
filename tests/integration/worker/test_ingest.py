"""Ingest against a real Postgres: exactness under repeats, reorder, fencing, and races."""

import random
import threading
import time
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError

from dreamforge.db import jobs as job_statements
from dreamforge.errors import ErrorCode
from dreamforge.events import EventBatch, Failure, Outcome, RunnerEvent, Verdict
from dreamforge.jobs import JobState
from dreamforge_api.worker import ingest
from dreamforge_api.worker.ingest import BadBatch, ingest_batch, new_id
from dreamforge_api.worker.retry import RetryPolicy, Then
from tests.jobs import STEP, Runner, create, rows

POLICY = RetryPolicy(first_delay=0.01)


def job_row(engine: Engine, job_id: UUID) -> dict[str, Any]:
    return rows(engine, "SELECT * FROM jobs WHERE id = :id", id=job_id)[0]


def stream(engine: Engine, job_id: UUID) -> list[dict[str, Any]]:
    return rows(engine, "SELECT * FROM events WHERE job_id = :id ORDER BY seq", id=job_id)


def say(engine: Engine, batch: EventBatch) -> ingest.Ingested:
    return ingest_batch(engine, batch, POLICY)


def test_a_whole_job(engine: Engine) -> None:
    job_id = create(engine, count=2)
    runner = Runner(job_id)
    say(engine, runner.batch(runner.started(), runner.item(0, 11), runner.progress(0, 15)))
    assert job_row(engine, job_id)["status"] == "running"
    say(engine, runner.batch(runner.stored(0, 11), runner.item(1, 12)))
    assert job_row(engine, job_id)["completed"] == 1
    last = say(engine, runner.batch(runner.stored(1, 12), runner.gpu(), runner.finished(Outcome.SUCCEEDED, done=2)))
    assert last.verdict is Verdict.COMMITTED
    job = job_row(engine, job_id)
    assert (job["status"], job["progress"], job["completed"], job["attempt"]) == ("succeeded", 1, 2, 1)
    events = stream(engine, job_id)
    assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
    assert job["last_seq"] == len(events)
    states = [e["payload"]["status"] for e in events if e["type"] == "state"]
    assert states == ["running", "succeeded"]
    assert events[-1]["type"] == "state"
    items = rows(engine, "SELECT * FROM items WHERE job_id = :id ORDER BY item_index", id=job_id)
    assert [(i["status"], i["seed"], i["progress"]) for i in items] == [("succeeded", 11, 1), ("succeeded", 12, 1)]
    attempt = rows(engine, "SELECT * FROM attempts WHERE job_id = :id", id=job_id)[0]
    assert (attempt["status"], attempt["gpu"]["source"]) == ("succeeded", "none")


def test_a_repeated_batch_changes_nothing_and_is_acked_again(engine: Engine) -> None:
    job_id = create(engine)
    runner = Runner(job_id)
    batch = runner.batch(runner.started(), runner.item(0), runner.stored(0))
    first = say(engine, batch)
    before = stream(engine, job_id)
    again = say(engine, batch)
    assert (again.verdict, again.acked_seq) == (Verdict.COMMITTED, first.acked_seq)
    assert stream(engine, job_id) == before


def test_a_batch_that_overlaps_adds_only_what_is_new(engine: Engine) -> None:
    job_id = create(engine)
    runner = Runner(job_id)
    events: list[RunnerEvent] = [runner.started(), runner.item(0), runner.progress(0, 1), runner.progress(0, 2)]
    say(engine, runner.batch(*events[:2]))
    say(engine, runner.batch(*events[1:]))
    assert [e["producer_seq"] for e in stream(engine, job_id) if e["producer_seq"]] == [1, 2, 3, 4]


def test_a_batch_from_the_future_waits_for_the_one_before(engine: Engine) -> None:
    job_id = create(engine)
    runner = Runner(job_id)
    first, second = runner.batch(runner.started()), runner.batch(runner.item(0))
    gap = say(engine, second)
    assert (gap.verdict, gap.acked_seq) == (Verdict.GAP, 0)
    assert stream(engine, job_id) == []
    say(engine, first)
    assert say(engine, second).verdict is Verdict.COMMITTED


def test_a_newer_attempt_fences_the_older(engine: Engine) -> None:
    job_id = create(engine)
    old, new = Runner(job_id, "run-old"), Runner(job_id, "run-new")
    say(engine, old.batch(old.started(), old.item(0, 5)))
    say(engine, new.batch(new.started()))
    late = say(engine, old.batch(old.stored(0, 5)))
    assert late.verdict is Verdict.REFUSED_FENCED
    assert rows(engine, "SELECT 1 FROM artifacts WHERE job_id = :id", id=job_id) == []
    assert job_row(engine, job_id)["attempt"] == 2
    attempts = rows(engine, "SELECT status FROM attempts WHERE job_id = :id ORDER BY number", id=job_id)
    assert [a["status"] for a in attempts] == ["lost", "running"]


def test_a_replaced_attempt_has_a_gpu_verdict_and_its_own_words_win(engine: Engine) -> None:
    job_id = create(engine)
    old, new = Runner(job_id, "run-old"), Runner(job_id, "run-new")
    say(engine, old.batch(old.started()))
    say(engine, new.batch(new.started()))

    def verdict() -> dict[str, Any]:
        found: dict[str, Any] = rows(engine, "SELECT gpu FROM attempts WHERE job_id = :id AND number = 1", id=job_id)[
            0
        ]
        return dict(found["gpu"])

    assert (verdict()["source"], verdict()["child_discarded"]) == ("none", True)
    assert say(engine, old.batch(old.gpu())).verdict is Verdict.REFUSED_FENCED
    assert verdict()["child_discarded"] is False


def test_an_artifact_reported_by_two_attempts_is_one_row(engine: Engine) -> None:
    job_id = create(engine, count=2)
    old, new = Runner(job_id, "run-a"), Runner(job_id, "run-b")
    say(engine, old.batch(old.started(), old.item(0, 5), old.stored(0, 5)))
    say(engine, new.batch(new.started(), new.stored(0, 5)))
    assert len(rows(engine, "SELECT 1 FROM artifacts WHERE job_id = :id", id=job_id)) == 1
    assert len([e for e in stream(engine, job_id) if e["type"] == "artifact"]) == 1
    assert job_row(engine, job_id)["completed"] == 1


def test_a_seed_reported_late_by_storage_is_kept(engine: Engine) -> None:
    """A new attempt reports an item whose start was never ingested: the seed comes with the artifact."""
    job_id = create(engine)
    runner = Runner(job_id)
    say(engine, runner.batch(runner.started(), runner.stored(0, 99), runner.finished(Outcome.SUCCEEDED, done=1)))
    assert rows(engine, "SELECT seed FROM items WHERE job_id = :id", id=job_id) == [{"seed": 99}]
    assert job_row(engine, job_id)["status"] == "succeeded"


def test_nothing_follows_a_terminal_state(engine: Engine) -> None:
    job_id = create(engine)
    runner = Runner(job_id)
    say(engine, runner.batch(runner.started(), runner.item(0)))
    with engine.begin() as connection:
        assert ingest.finish(connection, job_id, JobState.CANCELED, STEP) is not None
        assert ingest.finish(connection, job_id, JobState.SUCCEEDED, STEP) is None
    before = stream(engine, job_id)
    assert say(engine, runner.batch(runner.stored(0), runner.gpu())).verdict is Verdict.REFUSED_TERMINAL
    assert stream(engine, job_id) == before
    verdict = rows(engine, "SELECT gpu FROM attempts WHERE job_id = :id", id=job_id)[0]["gpu"]
    assert verdict["source"] == "none"
    assert rows(engine, "SELECT status FROM items WHERE job_id = :id", id=job_id) == [{"status": "canceled"}]


def test_an_unknown_job_is_refused(engine: Engine) -> None:
    runner = Runner(new_id())
    assert say(engine, runner.batch(runner.started())).verdict is Verdict.REFUSED_UNKNOWN_JOB


def test_a_failure_that_may_pass_is_tried_again_and_then_fails(engine: Engine) -> None:
    job_id = create(engine)
    for number in (1, 2, 3):
        runner = Runner(job_id, f"run-{number}")
        failure = Failure(code=ErrorCode.STORAGE_ERROR, message="the store said no", item_index=0)
        done = say(
            engine,
            runner.batch(runner.started(), runner.item(0), runner.finished(Outcome.FAILED, failure)),
        )
        assert done.decision is not None
        job = job_row(engine, job_id)
        if number < 3:
            assert (done.decision.then, job["status"], job["failures"]) == (Then.AGAIN, "running", number)
            assert job["dispatched_at"] is None
    job = job_row(engine, job_id)
    assert (job["status"], job["error_code"], job["error_item_index"]) == ("failed", "storage_error", 0)
    assert job["error_retryable"] is True
    events = stream(engine, job_id)
    assert [e["type"] for e in events[-2:]] == ["error", "state"]
    assert [e["seq"] for e in events] == list(range(1, len(events) + 1))


def test_bad_input_is_not_tried_again(engine: Engine) -> None:
    job_id = create(engine)
    runner = Runner(job_id)
    failure = Failure(code=ErrorCode.MODEL_INVALID, message="not a checkpoint")
    say(engine, runner.batch(runner.started(), runner.finished(Outcome.FAILED, failure)))
    assert job_row(engine, job_id)["error_code"] == "model_invalid"


def test_a_stop_is_followed_by_another_attempt_that_does_not_count(engine: Engine) -> None:
    job_id = create(engine)
    runner = Runner(job_id)
    say(engine, runner.batch(runner.started(), runner.finished(Outcome.STOPPED)))
    job = job_row(engine, job_id)
    assert (job["status"], job["failures"], job["dispatched_at"]) == ("running", 0, None)


def test_a_cancel_that_was_asked_for_ends_the_job(engine: Engine) -> None:
    job_id = create(engine)
    runner = Runner(job_id)
    say(engine, runner.batch(runner.started(), runner.item(0)))
    with engine.begin() as connection:
        connection.execute(job_statements.REQUEST_CANCEL, {"job_id": job_id})
    say(engine, runner.batch(runner.finished(Outcome.CANCELED)))
    assert job_row(engine, job_id)["status"] == "canceled"


def test_a_success_wins_over_a_late_cancel(engine: Engine) -> None:
    job_id = create(engine)
    runner = Runner(job_id)
    with engine.begin() as connection:
        connection.execute(job_statements.REQUEST_CANCEL, {"job_id": job_id})
    say(engine, runner.batch(runner.started(), runner.stored(0), runner.finished(Outcome.SUCCEEDED, done=1)))
    assert job_row(engine, job_id)["status"] == "succeeded"


def test_a_batch_that_breaks_the_protocol_writes_nothing(engine: Engine) -> None:
    job_id = create(engine)
    runner = Runner(job_id)
    with pytest.raises(BadBatch, match=r"attempt\.started"):
        say(engine, runner.batch(runner.item(0)))
    other = Runner(job_id, "run-2")
    with pytest.raises(BadBatch, match="item 7"):
        say(engine, other.batch(other.started(), other.item(7)))
    assert stream(engine, job_id) == []
    assert job_row(engine, job_id)["status"] == "queued"


def test_illegal_rows_are_refused_by_the_database(engine: Engine) -> None:
    job_id = create(engine)
    for change in (
        "status = 'done'",
        "status = 'succeeded', finished_at = now(), started_at = now()",
        "status = 'failed', finished_at = now()",
        "finished_at = now()",
        "progress = 1.5",
        "completed = 2",
    ):
        with pytest.raises(IntegrityError), engine.begin() as connection:
            connection.exec_driver_sql(f"UPDATE jobs SET {change} WHERE id = '{job_id}'")


def test_eight_writers_and_a_tailing_reader_skip_nothing(engine: Engine) -> None:
    """Readers tail by ``seq > last``; that is safe only because seq is taken under the job row's lock."""
    job_id = create(engine, count=100)
    writers = [Runner(job_id, f"run-{n}") for n in range(8)]
    done = threading.Event()
    seen: list[int] = []

    def tail() -> None:
        last = 0
        while True:
            over = done.is_set()
            for row in rows(
                engine, "SELECT seq FROM events WHERE job_id = :id AND seq > :last ORDER BY seq", id=job_id, last=last
            ):
                seen.append(row["seq"])
                last = row["seq"]
            if over:
                return

    def write(runner: Runner) -> None:
        say(engine, runner.batch(runner.started()))
        for step in range(30):
            say(engine, runner.batch(runner.progress(random.randrange(100), step)))

    reader = threading.Thread(target=tail)
    threads = [threading.Thread(target=write, args=(runner,)) for runner in writers]
    for thread in [reader, *threads]:
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    reader.join()
    total = job_row(engine, job_id)["last_seq"]
    assert isinstance(total, int)
    assert total > 8
    assert seen == list(range(1, total + 1))


def test_batches_of_one_job_from_two_workers_do_not_read_stale_items(engine: Engine) -> None:
    """A batch that waited for the job's lock must see what the one before it wrote: items too, not only the job."""
    job_id = create(engine, count=2)
    first, second = Runner(job_id, "run-x"), Runner(job_id, "run-y")
    say(engine, first.batch(first.started(), first.item(0, 5)))
    late: list[ingest.Ingested] = []
    with engine.connect() as holder:
        transaction = holder.begin()
        holder.exec_driver_sql(f"SELECT 1 FROM jobs WHERE id = '{job_id}' FOR UPDATE")
        thread = threading.Thread(
            target=lambda: late.append(say(engine, second.batch(second.started(), second.stored(0, 5))))
        )
        thread.start()
        until = time.monotonic() + 10
        waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        while not rows(engine, waiting):
            assert time.monotonic() < until
        # What a worker that held the lock would have written meanwhile.
        holder.exec_driver_sql(
            "UPDATE items SET status = 'succeeded', progress = 1, finished_at = now() "
            f"WHERE job_id = '{job_id}' AND item_index = 0"
        )
        holder.exec_driver_sql(f"UPDATE jobs SET completed = 1 WHERE id = '{job_id}'")
        transaction.commit()
    thread.join()
    assert late[0].verdict is Verdict.COMMITTED
    assert job_row(engine, job_id)["completed"] == 1
