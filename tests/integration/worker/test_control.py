"""The control loop on a real Postgres and the in-memory executor: every duty, and what it must not do."""

from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from dreamforge.db import jobs as job_statements
from dreamforge.events import Outcome
from dreamforge.jobs import JobState
from dreamforge.spec import RenderSpec
from dreamforge_api.execution.base import Liveness, Refused, TryLater, Unreachable
from dreamforge_api.execution.memory import MemoryExecutor
from dreamforge_api.worker.ingest import ingest_batch
from dreamforge_api.worker.retry import RetryPolicy
from tests.integration.worker.control_kit import Harness, age, counted, make_due, on_a_cluster
from tests.jobs import Runner, create, rows


def test_waiting_jobs_are_handed_out_oldest_first_and_once(harness: Harness) -> None:
    ids = [create(harness.engine) for _ in range(3)]
    assert harness.loop.dispatch() == 3
    assert list(harness.executor.specs) == ids
    assert harness.loop.dispatch() == 0
    job = harness.job(ids[0])
    assert (job["executor_kind"], job["executor_ref"]) == ("memory", f"memory-{ids[0]}")


def test_no_more_than_the_window_is_handed_out(engine: Engine, harness: Harness) -> None:
    narrow = Harness(engine, window=2)
    for _ in range(5):
        create(engine)
    assert narrow.loop.dispatch() == 2
    assert narrow.loop.dispatch() == 0


def test_an_executor_that_is_away_loses_nothing(engine: Engine, harness: Harness) -> None:
    class Away(MemoryExecutor):
        def submit(self, spec: RenderSpec) -> str:
            raise TryLater("not now")

    job_id = create(engine)
    away = Harness(engine, Away())
    with pytest.raises(TryLater):
        away.loop.dispatch()
    assert harness.job(job_id)["dispatched_at"] is None
    make_due(harness)
    assert harness.loop.dispatch() == 1


class PutsOff(MemoryExecutor):
    """Never takes some jobs; keeps count of what it was asked."""

    def __init__(self, never: set[UUID], error: type[TryLater] = TryLater) -> None:
        super().__init__()
        self.never = never
        self.error = error
        self.asked: list[UUID] = []

    def submit(self, spec: RenderSpec) -> str:
        self.asked.append(spec.job_id)
        if spec.job_id in self.never:
            raise self.error("an object of this name is being deleted")
        return super().submit(spec)


def test_a_job_that_is_put_off_holds_up_no_other(engine: Engine, harness: Harness) -> None:
    stuck, *others = [create(engine) for _ in range(4)]
    age(harness, [stuck])
    executor = PutsOff({stuck})
    loop = Harness(engine, executor).loop
    assert loop.dispatch() == 3
    assert list(executor.specs) == others
    last = create(engine)
    assert loop.dispatch() == 1
    assert executor.asked == [stuck, *others, last], "it is not asked again before its time"
    make_due(harness)
    executor.never.clear()
    assert loop.dispatch() == 1
    assert harness.job(stuck)["dispatched_at"] is not None


def test_jobs_that_are_put_off_give_way_however_many_they_are(engine: Engine, harness: Harness) -> None:
    stuck = [create(engine) for _ in range(7)]
    last = create(engine)
    age(harness, stuck)
    executor = PutsOff(set(stuck))
    loop = Harness(engine, executor, refusals=3).loop
    for asked in (3, 6):
        with pytest.raises(TryLater):
            loop.dispatch()
        assert executor.asked == stuck[:asked], "the rest of a pass is spared after so many in a row"
    assert loop.dispatch() == 1
    assert executor.asked == [*stuck, last]


def test_an_executor_that_nobody_reaches_is_asked_once_in_a_pass(engine: Engine, harness: Harness) -> None:
    ids = [create(engine) for _ in range(5)]
    age(harness, ids)
    executor = PutsOff(set(ids), Unreachable)
    loop = Harness(engine, executor).loop
    for passes in (1, 2):
        with pytest.raises(Unreachable):
            loop.dispatch()
        assert executor.asked == ids[:passes]


def test_an_executor_that_goes_away_keeps_what_it_took(engine: Engine, harness: Harness) -> None:
    class Full(MemoryExecutor):
        def submit(self, spec: RenderSpec) -> str:
            if len(self.specs) == 2:
                raise TryLater("no room")
            return super().submit(spec)

    ids = [create(engine) for _ in range(4)]
    with pytest.raises(TryLater):
        Harness(engine, Full()).loop.dispatch()
    assert [harness.job(job_id)["dispatched_at"] is not None for job_id in ids] == [True, True, False, False]


def test_a_refusal_fails_the_job_with_the_reason(engine: Engine, harness: Harness) -> None:
    class Strict(MemoryExecutor):
        def submit(self, spec: RenderSpec) -> str:
            raise Refused("another object has this name")

    job_id = create(engine)
    Harness(engine, Strict()).loop.dispatch()
    job = harness.job(job_id)
    assert (job["status"], job["error_code"]) == ("failed", "dispatch_refused")
    assert "another object" in str(job["error_message"])


def test_a_model_that_left_the_registry_fails_the_job(harness: Harness) -> None:
    job_id = create(harness.engine)
    with harness.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM models")
    harness.loop.dispatch()
    assert harness.job(job_id)["error_code"] == "model_missing"


def test_parameters_of_another_version_fail_their_job_and_no_other(harness: Harness) -> None:
    """Anything else would end the loop of every worker, again and again."""
    strange, plain = create(harness.engine), create(harness.engine)
    with harness.engine.begin() as connection:
        statement = text("UPDATE jobs SET params = params || '{\"sampler_v9\": 1}' WHERE id = :id")
        connection.execute(statement, {"id": strange})
    assert harness.loop.dispatch() == 2
    job = harness.job(strange)
    assert (job["status"], job["error_code"]) == ("failed", "invalid_input")
    assert "sampler_v9" in str(job["error_message"])
    assert list(harness.executor.specs) == [plain]


def test_seeds_of_earlier_attempts_go_along(harness: Harness) -> None:
    job_id = create(harness.engine, count=2)
    runner = Runner(job_id)
    batch = runner.batch(runner.started(), runner.item(0, 42), runner.finished(Outcome.STOPPED))
    ingest_batch(harness.engine, batch, harness.retry)
    harness.loop.dispatch()
    assert harness.executor.specs[job_id].seeds == {0: 42}


def test_a_lost_message_is_sent_again_and_does_not_count(harness: Harness) -> None:
    job_id = create(harness.engine)
    harness.loop.dispatch()
    harness.executor.jobs.clear()
    assert harness.loop.find_lost() == 1
    assert harness.job(job_id)["failures"] == 0
    assert harness.loop.dispatch() == 1


def test_a_vanished_runner_counts_and_the_job_fails_after_two(harness: Harness) -> None:
    job_id = create(harness.engine)
    for number in (1, 2):
        assert harness.loop.dispatch() == 1
        harness.executor.start(job_id)
        runner = Runner(job_id, f"run-{number}")
        ingest_batch(harness.engine, runner.batch(runner.started()), harness.retry)
        assert harness.loop.find_lost() == 0
        harness.executor.vanish(job_id)
        assert harness.loop.find_lost() == 1
    job = harness.job(job_id)
    assert (job["status"], job["error_code"]) == ("failed", "runner_lost")
    assert job_id in harness.announced
    states = rows(harness.engine, "SELECT DISTINCT status FROM attempts WHERE job_id = :id", id=job_id)
    assert states == [{"status": "lost"}]


def stop_while_handed_out_again(harness: Harness, job_id: UUID, number: int) -> None:
    """The runner says that it stopped; the job is handed out while its lease still stands, and then that goes."""
    harness.executor.start(job_id)
    runner = Runner(job_id, f"run-{number}")
    batch = runner.batch(runner.started(), runner.finished(Outcome.STOPPED))
    ingest_batch(harness.engine, batch, harness.retry)
    assert harness.loop.dispatch() == 1
    assert harness.executor.liveness(job_id, None) is Liveness.ALIVE, "nothing was sent"
    harness.executor.vanish(job_id)


def test_a_runner_that_stopped_is_no_lost_one_however_often(harness: Harness) -> None:
    lost = counted("dreamforge_runner_lost_total")
    again = counted("dreamforge_redispatches_total", reason="lost_message")
    job_id = create(harness.engine)
    assert harness.loop.dispatch() == 1
    for number in (1, 2, 3):
        stop_while_handed_out_again(harness, job_id, number)
        assert harness.loop.find_lost() == 1
        job = harness.job(job_id)
        assert (job["status"], job["failures"], job["dispatched_at"]) == ("running", 0, None)
        assert harness.loop.dispatch() == 1
        assert harness.executor.liveness(job_id, None) is Liveness.WAITING
    assert counted("dreamforge_runner_lost_total") == lost
    assert counted("dreamforge_redispatches_total", reason="lost_message") == again + 3
    told = rows(harness.engine, "SELECT code FROM events WHERE job_id = :id AND code LIKE '%.lost'", id=job_id)
    assert told == [{"code": "message.lost"}] * 3


def test_a_canceled_job_whose_runner_stopped_is_not_handed_out_again(harness: Harness) -> None:
    job_id = create(harness.engine)
    harness.loop.dispatch()
    stop_while_handed_out_again(harness, job_id, 1)
    harness.cancel(job_id)
    assert harness.loop.find_lost() == 1
    assert harness.job(job_id)["status"] == "canceled"


def test_a_stopped_runner_has_time_to_let_go_before_the_job_is_handed_out(harness: Harness) -> None:
    job_id = create(harness.engine)
    harness.loop.dispatch()
    runner = Runner(job_id)
    batch = runner.batch(runner.started(), runner.finished(Outcome.STOPPED))
    ingest_batch(harness.engine, batch, RetryPolicy(stop_delay=3600.0))
    assert harness.loop.dispatch() == 0
    make_due(harness)
    assert harness.loop.dispatch() == 1


def test_a_living_or_waiting_job_is_left_alone(harness: Harness) -> None:
    running, waiting = create(harness.engine), create(harness.engine)
    harness.loop.dispatch()
    harness.executor.start(running)
    assert harness.loop.find_lost() == 0
    assert harness.executor.liveness(waiting, None) is Liveness.WAITING


def test_a_cancel_between_two_attempts_ends_the_job(harness: Harness) -> None:
    job_id = create(harness.engine)
    harness.cancel(job_id)
    harness.loop.dispatch()
    assert harness.executor.specs == {}
    harness.loop.cancel()
    assert harness.job(job_id)["status"] == "canceled"


def test_a_cancel_reaches_the_executor_and_is_forced_in_the_end(engine: Engine, harness: Harness) -> None:
    patient = Harness(engine, harness.executor, cancel_seconds=3600.0)
    job_id = create(engine)
    patient.loop.dispatch()
    patient.executor.start(job_id)
    patient.cancel(job_id)
    patient.loop.cancel()
    assert job_id in patient.executor.canceled
    assert patient.job(job_id)["status"] == "queued"
    harness.loop.cancel()
    assert harness.job(job_id)["status"] == "canceled"


def test_the_executor_is_told_once_of_a_job_canceled_while_it_waited(harness: Harness) -> None:
    job_id = create(harness.engine)
    harness.loop.dispatch()
    with harness.engine.begin() as connection:
        parameters = job_statements.finish_parameters(job_id, JobState.CANCELED, "generate")
        connection.execute(job_statements.FINISH, parameters)
    assert harness.loop.release() == 1
    assert job_id in harness.executor.canceled
    assert harness.loop.release() == 0


def test_a_deadline_that_passed_fails_the_job(harness: Harness) -> None:
    late = create(harness.engine, deadline=timedelta(seconds=-1))
    punctual = create(harness.engine)
    assert harness.loop.expire() == 1
    job = harness.job(late)
    assert (job["status"], job["error_code"], job["error_retryable"]) == ("failed", "job_timeout", False)
    assert harness.job(punctual)["status"] == "queued"
    assert late in harness.executor.canceled


def test_two_loops_side_by_side_hand_out_each_job_once(engine: Engine, harness: Harness) -> None:
    ids = {create(engine) for _ in range(10)}
    other = Harness(engine, harness.executor)
    assert harness.loop.dispatch() + other.loop.dispatch() == 10
    assert set(harness.executor.specs) == ids


def test_a_job_that_waited_too_long_fails_with_its_class_and_event(engine: Engine, harness: Harness) -> None:
    impatient = Harness(engine, queue_seconds=60.0)
    late, young, running = create(engine), create(engine), create(engine)
    runner = Runner(running)
    ingest_batch(engine, runner.batch(runner.started()), harness.retry)
    impatient.loop.dispatch()
    with engine.begin() as connection:
        old = text("UPDATE jobs SET created_at = now() - interval '61 s' WHERE id = ANY(:ids)")
        connection.execute(old, {"ids": [late, running]})
    before = counted("dreamforge_deadlines_missed_total", deadline="queue")
    assert impatient.loop.expire_queued() == 1
    assert counted("dreamforge_deadlines_missed_total", deadline="queue") == before + 1
    job = harness.job(late)
    assert (job["status"], job["error_code"]) == ("failed", "job_timeout")
    assert "waited longer than 60 s" in str(job["error_message"])
    assert late in impatient.executor.canceled
    assert running not in impatient.executor.canceled
    assert [harness.job(job_id)["status"] for job_id in (young, running)] == ["queued", "running"]
    events = rows(engine, "SELECT type, code FROM events WHERE job_id = :id ORDER BY seq", id=late)
    assert [(event["type"], event["code"]) for event in events] == [("error", "job_timeout"), ("state", "job.failed")]
    assert impatient.loop.expire_queued() == 0


def test_without_a_queue_deadline_a_job_waits_until_its_own(engine: Engine, harness: Harness) -> None:
    job_id = create(engine)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE jobs SET created_at = now() - interval '1 year' WHERE id = :id"), {"id": job_id}
        )
    assert harness.loop.expire_queued() == 0
    assert harness.job(job_id)["status"] == "queued"


def test_lost_runners_redispatches_and_dead_jobs_are_counted(harness: Harness) -> None:
    names = {
        "lost": ("dreamforge_runner_lost_total", {}),
        "again": ("dreamforge_redispatches_total", {"reason": "lost_runner"}),
        "message": ("dreamforge_redispatches_total", {"reason": "lost_message"}),
        "dead": ("dreamforge_dead_jobs_total", {"code": "runner_lost"}),
        "canceled": ("dreamforge_cancels_total", {"by": "control"}),
    }
    before = {name: counted(metric, **labels) for name, (metric, labels) in names.items()}
    job_id, forgotten, canceled = create(harness.engine), create(harness.engine), create(harness.engine)
    harness.loop.dispatch()
    del harness.executor.jobs[forgotten]
    harness.loop.find_lost()
    harness.loop.dispatch()
    for number in (1, 2):
        runner = Runner(job_id, f"run-{number}")
        ingest_batch(harness.engine, runner.batch(runner.started()), harness.retry)
        harness.executor.vanish(job_id)
        harness.loop.find_lost()
        harness.loop.dispatch()
    harness.cancel(canceled)
    harness.executor.vanish(canceled)
    harness.loop.cancel()
    after = {name: counted(metric, **labels) for name, (metric, labels) in names.items()}
    assert {name: after[name] - before[name] for name in names} == {
        "lost": 2, "again": 1, "message": 1, "dead": 1, "canceled": 1,
    }  # fmt: skip


def test_every_job_that_the_loop_ends_is_in_the_durations(engine: Engine, harness: Harness) -> None:
    class Strict(MemoryExecutor):
        def submit(self, spec: RenderSpec) -> str:
            raise Refused("another object has this name")

    def seen() -> list[float]:
        return [counted("dreamforge_job_duration_seconds_count", status=state) for state in ("failed", "canceled")]

    failed, canceled = seen()
    create(engine, deadline=timedelta(seconds=-1))
    assert (harness.loop.expire(), harness.loop.expire()) == (1, 0)
    assert seen() == [failed + 1, canceled]

    create(engine)
    Harness(engine, Strict()).loop.dispatch()
    assert seen() == [failed + 2, canceled]

    harness.cancel(create(engine))
    assert harness.loop.cancel() == 1
    assert seen() == [failed + 2, canceled + 1]

    cluster = on_a_cluster(harness, forsaken_seconds=0)
    forsaken, taken_away = create(engine), create(engine)
    cluster.loop.dispatch()
    cluster.executor.vanish(forsaken)
    del cluster.executor.jobs[taken_away]
    assert cluster.loop.find_lost() == 2
    assert seen() == [failed + 3, canceled + 2]


def test_how_long_a_job_took_is_counted_from_its_creation(engine: Engine, harness: Harness) -> None:
    job_id = create(engine, deadline=timedelta(seconds=-1))
    age(harness, [job_id])
    before = counted("dreamforge_job_duration_seconds_sum", status="failed")
    assert harness.loop.expire() == 1
    assert counted("dreamforge_job_duration_seconds_sum", status="failed") - before >= 3600


class Deaf(MemoryExecutor):
    """Can't be told of a cancel."""

    def __init__(self, error: TryLater) -> None:
        super().__init__()
        self.error = error
        self.asked: list[UUID] = []

    def cancel(self, job_id: UUID, ref: str | None) -> None:
        self.asked.append(job_id)
        raise self.error


@pytest.mark.parametrize("deadline", ["its own", "the queue's"])
def test_deadlines_hold_while_the_executor_is_away(engine: Engine, harness: Harness, deadline: str) -> None:
    executor = Deaf(Unreachable("nobody answers"))
    deaf = Harness(engine, executor, queue_seconds=60.0)
    late = [create(engine, deadline=timedelta(seconds=-1 if deadline == "its own" else 7200)) for _ in range(2)]
    age(deaf, late)
    duty = deaf.loop.expire if deadline == "its own" else deaf.loop.expire_queued
    assert duty() == 2
    assert [deaf.job(job_id)["error_code"] for job_id in late] == ["job_timeout", "job_timeout"]
    assert executor.asked == late[:1], "nobody else is asked where nobody answers"
    assert duty() == 0


def test_a_job_of_which_the_executor_can_not_be_told_holds_up_no_other(engine: Engine, harness: Harness) -> None:
    executor = Deaf(TryLater("not now"))
    late = [create(engine, deadline=timedelta(seconds=-1)) for _ in range(2)]
    assert Harness(engine, executor).loop.expire() == 2
    assert executor.asked == late
