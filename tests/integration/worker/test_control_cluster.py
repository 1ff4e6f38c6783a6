"""The control loop before a cluster, which retries by itself, keeps Secrets, and may take a job without a word."""

from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import Engine

from dreamforge.db import jobs as job_statements
from dreamforge.events import Outcome
from dreamforge.jobs import JobState
from dreamforge.spec import RenderSpec
from dreamforge_api.execution.base import Liveness, Refused, TryLater, Unreachable
from dreamforge_api.execution.memory import MemoryExecutor
from dreamforge_api.worker.ingest import ingest_batch
from tests.integration.worker.control_kit import Harness, on_a_cluster
from tests.jobs import Runner, create


def test_a_clusters_job_that_somebody_took_away_is_canceled_and_not_made_again(harness: Harness) -> None:
    job_id = create(harness.engine)
    cluster = on_a_cluster(harness)
    cluster.loop.dispatch()
    assert cluster.loop.find_lost() == 0
    del cluster.executor.jobs[job_id]
    assert cluster.loop.find_lost() == 1
    assert cluster.job(job_id)["status"] == "canceled"
    assert cluster.loop.dispatch() == 0


def test_a_clusters_job_that_ended_there_waits_for_word_of_it_and_then_fails(harness: Harness) -> None:
    job_id = create(harness.engine)
    patient, impatient = on_a_cluster(harness, forsaken_seconds=60), on_a_cluster(harness, forsaken_seconds=0)
    for cluster in (patient, impatient):
        cluster.loop.dispatch()
        cluster.executor.vanish(job_id)
    assert patient.loop.find_lost() == 0
    assert impatient.loop.find_lost() == 1
    job = impatient.job(job_id)
    assert (job["status"], job["error_code"]) == ("failed", "runner_lost")


def test_what_a_cluster_keeps_for_an_ended_job_is_released_once_it_ended_there_too(harness: Harness) -> None:
    job_id = create(harness.engine)
    cluster = on_a_cluster(harness, release_seconds=0.0)
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
    cluster = on_a_cluster(harness, release_seconds=0.0)
    cluster.loop.dispatch()
    cluster.executor.start(late)
    assert cluster.loop.expire() == 1
    assert late not in cluster.executor.canceled
    cluster.loop.release()
    assert late in cluster.executor.canceled


class Died(BaseException):
    """The worker's process was killed here."""


class Half(MemoryExecutor):
    """A cluster that keeps what it is given and does not say so."""

    kind = "kubernetes"

    def __init__(self, error: BaseException) -> None:
        super().__init__(retries_itself=True)
        self.error = error

    def submit(self, spec: RenderSpec) -> str:
        if not isinstance(self.error, Refused):
            super().submit(spec)
        raise self.error


def end_as_canceled(engine: Engine, job_id: UUID) -> None:
    """As the API does with a job that is queued."""
    with engine.begin() as connection:
        parameters = job_statements.finish_parameters(job_id, JobState.CANCELED, "generate")
        connection.execute(job_statements.FINISH, parameters)


def test_what_a_refused_submit_left_on_a_cluster_is_released(engine: Engine, harness: Harness) -> None:
    job_id = create(engine)
    executor = Half(Refused("not this one"))
    cluster = Harness(engine, executor)
    assert cluster.loop.dispatch() == 1
    assert cluster.job(job_id)["error_code"] == "dispatch_refused"
    assert cluster.loop.release() == 1
    assert (executor.released, executor.canceled) == ({job_id}, set())
    assert cluster.loop.release() == 0


LOST_WORDS = [Unreachable("no answer"), TryLater("no room for all of it"), Died()]


@pytest.mark.parametrize("error", LOST_WORDS, ids=lambda error: type(error).__name__)
def test_a_cancel_reaches_what_a_cluster_took_without_a_word(
    engine: Engine, harness: Harness, error: BaseException
) -> None:
    by_api, by_control = create(engine), create(engine)
    executor = Half(error)
    cluster = Harness(engine, executor)
    for _ in (by_api, by_control):
        with pytest.raises(type(error)):
            cluster.loop.dispatch()
    cluster.cancel(by_control)
    cluster.loop.cancel()
    end_as_canceled(engine, by_api)
    assert [cluster.job(job_id)["status"] for job_id in (by_api, by_control)] == ["canceled", "canceled"]
    assert cluster.loop.release() == 2
    assert executor.canceled == executor.released == {by_api, by_control}
    assert executor.jobs == {}
    assert cluster.loop.release() == 0


@pytest.mark.parametrize("error", LOST_WORDS, ids=lambda error: type(error).__name__)
def test_a_deadline_reaches_what_a_cluster_took_without_a_word(
    engine: Engine, harness: Harness, error: BaseException
) -> None:
    late = create(engine, deadline=timedelta(seconds=-1))
    executor = Half(error)
    cluster = Harness(engine, executor)
    with pytest.raises(type(error)):
        cluster.loop.dispatch()
    assert cluster.loop.expire() == 1
    assert cluster.loop.release() == 1
    assert executor.canceled == executor.released == {late}


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
