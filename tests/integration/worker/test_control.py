"""The control loop on a real Postgres and the in-memory executor: every duty, and what it must not do."""

from datetime import timedelta
from uuid import UUID

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import Engine, text

from dreamforge.db import jobs as job_statements
from dreamforge.events import Outcome
from dreamforge.jobs import JobState
from dreamforge.spec import Limits, RenderSpec
from dreamforge_api.execution.base import Liveness, Refused, TryLater, Unreachable
from dreamforge_api.execution.memory import MemoryExecutor
from dreamforge_api.worker.control import ControlLoop
from dreamforge_api.worker.ingest import ingest_batch
from dreamforge_api.worker.policy import ControlPolicy
from dreamforge_api.worker.retry import RetryPolicy
from tests.jobs import Runner, create, rows


class Harness:
    """A loop, its executor, and what it announced."""

    def __init__(self, engine: Engine, executor: MemoryExecutor | None = None, **policy: float | int) -> None:
        self.engine = engine
        self.executor = executor or MemoryExecutor()
        self.announced: list[UUID] = []
        self.retry = RetryPolicy(first_delay=0.0, jitter=0.0)
        bounds = {"silence_seconds": 0.0, "cancel_seconds": 0.0, **policy}
        self.loop = ControlLoop(
            engine,
            self.executor,
            lambda job_id, seq: self.announced.append(job_id),
            policy=ControlPolicy(**bounds),  # type: ignore[arg-type]  # a test's shorthand
            retry=self.retry,
            limits=Limits(),
        )

    def job(self, job_id: UUID) -> dict[str, object]:
        return rows(self.engine, "SELECT * FROM jobs WHERE id = :id", id=job_id)[0]

    def cancel(self, job_id: UUID) -> None:
        with self.engine.begin() as connection:
            connection.execute(job_statements.REQUEST_CANCEL, {"job_id": job_id})


@pytest.fixture
def harness(engine: Engine) -> Harness:
    with engine.begin() as connection:
        connection.exec_driver_sql("TRUNCATE jobs CASCADE")
    return Harness(engine)


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


def make_due(harness: Harness) -> None:
    with harness.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE jobs SET next_dispatch_at = now()")


def age(harness: Harness, ids: list[UUID]) -> None:
    """They have been waiting for an hour."""
    with harness.engine.begin() as connection:
        statement = text("UPDATE jobs SET created_at = created_at - interval '1 h' WHERE id = ANY(:ids)")
        connection.execute(statement, {"ids": ids})


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


def counted(metric: str, **labels: str) -> float:
    """A counter of this process as it stands."""
    return REGISTRY.get_sample_value(metric, labels) or 0.0


def _on_a_cluster(harness: Harness, **policy: float) -> Harness:
    executor = MemoryExecutor(retries_itself=True)
    executor.kind = "kubernetes"
    return Harness(harness.engine, executor, **policy)


def test_a_clusters_job_that_somebody_took_away_is_canceled_and_not_made_again(harness: Harness) -> None:
    job_id = create(harness.engine)
    cluster = _on_a_cluster(harness)
    cluster.loop.dispatch()
    assert cluster.loop.find_lost() == 0
    del cluster.executor.jobs[job_id]
    assert cluster.loop.find_lost() == 1
    assert cluster.job(job_id)["status"] == "canceled"
    assert cluster.loop.dispatch() == 0


def test_a_clusters_job_that_ended_there_waits_for_word_of_it_and_then_fails(harness: Harness) -> None:
    job_id = create(harness.engine)
    patient, impatient = _on_a_cluster(harness, forsaken_seconds=60), _on_a_cluster(harness, forsaken_seconds=0)
    for cluster in (patient, impatient):
        cluster.loop.dispatch()
        cluster.executor.vanish(job_id)
    assert patient.loop.find_lost() == 0
    assert impatient.loop.find_lost() == 1
    job = impatient.job(job_id)
    assert (job["status"], job["error_code"]) == ("failed", "runner_lost")


def test_what_a_cluster_keeps_for_an_ended_job_is_released_once_it_ended_there_too(harness: Harness) -> None:
    job_id = create(harness.engine)
    cluster = _on_a_cluster(harness, release_seconds=0.0)
    cluster.loop.dispatch()
    cluster.executor.start(job_id)
    runner = Runner(job_id)
    batch = runner.batch(runner.started(), runner.stored(0), runner.finished(Outcome.SUCCEEDED, done=1))
    ingest_batch(cluster.engine, batch, cluster.retry)
    assert cluster.loop.release() == 1
    assert cluster.executor.released == set()
    assert cluster.executor.canceled == set()
    cluster.executor.vanish(job_id)
    assert cluster.loop.release() == 1
    assert cluster.executor.released == {job_id}
    assert cluster.loop.release() == 0


def test_a_cluster_is_told_to_stop_a_job_whose_deadline_passed_even_if_it_was_away(harness: Harness) -> None:
    late = create(harness.engine, deadline=timedelta(seconds=-1))
    cluster = _on_a_cluster(harness, release_seconds=0.0)
    cluster.loop.dispatch()
    cluster.executor.start(late)
    assert cluster.loop.expire() == 1
    assert late not in cluster.executor.canceled
    cluster.loop.release()
    assert late in cluster.executor.canceled


class Mute(MemoryExecutor):
    """Can't tell of some jobs, as a cluster whose object of that name nobody can read."""

    kind = "kubernetes"

    def __init__(self, error: type[TryLater] = TryLater) -> None:
        super().__init__(retries_itself=True)
        self.mute: set[UUID] = set()
        self.error = error

    def liveness(self, job_id: UUID, ref: str | None) -> Liveness:
        if job_id in self.mute:
            raise self.error("its status can't be read")
        return super().liveness(job_id, ref)

    def release(self, job_id: UUID, ref: str | None) -> bool:
        return self.liveness(job_id, ref) is Liveness.GONE and super().release(job_id, ref)


def test_a_job_that_the_executor_can_not_tell_of_holds_up_no_other(engine: Engine, harness: Harness) -> None:
    executor = Mute()
    cluster = Harness(engine, executor, release_seconds=0.0)
    silent, mute, gone = create(engine), create(engine), create(engine)
    cluster.loop.dispatch()
    executor.mute = {silent, mute}
    del executor.jobs[gone]
    assert cluster.loop.find_lost() == 1
    assert [cluster.job(job_id)["status"] for job_id in (silent, mute, gone)] == ["queued", "queued", "canceled"]

    cluster.cancel(mute)
    other = create(engine, deadline=timedelta(seconds=-1))
    cluster.loop.dispatch()
    executor.vanish(other)
    assert (cluster.loop.cancel(), cluster.loop.expire()) == (1, 1)
    cluster.loop.release()
    assert other in executor.released
    assert mute not in executor.released
    executor.mute.clear()
    executor.vanish(mute)
    cluster.loop.release()
    assert mute in executor.released


def test_a_cancel_that_is_put_off_holds_up_no_other(engine: Engine, harness: Harness) -> None:
    executor = Mute()
    cluster = Harness(engine, executor, cancel_seconds=60.0)
    mute, other = create(engine), create(engine)
    cluster.loop.dispatch()
    executor.mute = {mute}
    for job_id in (mute, other):
        cluster.cancel(job_id)
    assert cluster.loop.cancel() == 2
    assert executor.canceled == {mute, other}
    assert cluster.job(mute)["status"] == "queued", "it has until its bound"


def test_an_executor_that_nobody_reaches_is_told_so_by_every_duty(engine: Engine, harness: Harness) -> None:
    executor = Mute(Unreachable)
    cluster = Harness(engine, executor, release_seconds=0.0)
    silent, over = create(engine), create(engine)
    cluster.loop.dispatch()
    executor.mute = {silent, over}
    with pytest.raises(Unreachable):
        cluster.loop.find_lost()
    cluster.cancel(over)
    cluster.loop.cancel()
    with pytest.raises(Unreachable):
        cluster.loop.release()
