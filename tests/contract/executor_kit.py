"""What every executor promises: the tests, to be imported by a module that has a ``stage`` fixture."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from dreamforge.spec import ModelRef, RenderParams, RenderSpec
from dreamforge_api.execution.base import Executor, Liveness
from dreamforge_api.worker.ingest import new_id


@dataclass
class Stage:
    """An executor, and a hand to play its runner with."""

    executor: Executor
    start: Callable[[UUID], None]
    vanish: Callable[[UUID], None]
    waiting: Callable[[], int]
    told: Callable[[UUID], RenderSpec]

    def liveness(self, job: RenderSpec) -> Liveness:
        return self.executor.liveness(job.job_id, None)


#: As a registry row of an installed model becomes it.
INSTALLED = ModelRef(
    id="sdxl-x@1.0_b",
    name="X",
    kind="sdxl-checkpoint",
    version="1.0_b",
    path="/srv/models/sdxl-checkpoint/sdxl-x@1.0_b/x.safetensors",
    folder_path="sdxl-checkpoint/sdxl-x@1.0_b/x.safetensors",
    sha256="ab" * 32,
    size_bytes=6_938_078_334,
)


def spec(job_id: UUID | None = None) -> RenderSpec:
    return RenderSpec(
        job_id=job_id or new_id(),
        created_at=datetime.now(UTC),
        correlation_id="test",
        params=RenderParams(prompt="a lighthouse"),
        model=ModelRef(id="sketch", name="Sketch", kind="sketch", version="1"),
    )


def test_submitting_twice_is_submitting_once(stage: Stage) -> None:
    job = spec()
    first = stage.executor.submit(job)
    assert stage.executor.submit(job) == first
    assert stage.waiting() == 1
    assert stage.liveness(job) is Liveness.WAITING


def test_submitting_what_runs_changes_nothing(stage: Stage) -> None:
    job = spec()
    stage.executor.submit(job)
    stage.start(job.job_id)
    stage.executor.submit(job)
    assert stage.waiting() == 0
    assert stage.liveness(job) is Liveness.ALIVE


def test_submitting_what_is_gone_starts_it_anew_unless_the_executor_does_that(stage: Stage) -> None:
    job = spec()
    stage.executor.submit(job)
    stage.start(job.job_id)
    stage.vanish(job.job_id)
    assert stage.liveness(job) is Liveness.GONE
    stage.executor.submit(job)
    if stage.executor.retries_itself:
        assert stage.liveness(job) is Liveness.GONE
        assert stage.waiting() == 0
    else:
        assert stage.liveness(job) is Liveness.WAITING
        assert stage.waiting() == 1


def test_the_unknown_is_absent_and_canceling_it_harmless(stage: Stage) -> None:
    stranger = new_id()
    assert stage.executor.liveness(stranger, None) is Liveness.ABSENT
    stage.executor.cancel(stranger, None)
    stage.executor.cancel(stranger, None)
    assert stage.executor.liveness(stranger, None) is Liveness.ABSENT


def test_a_waiting_job_that_is_canceled_never_starts(stage: Stage) -> None:
    job, other = spec(), spec()
    ref = stage.executor.submit(job)
    stage.executor.submit(other)
    stage.executor.cancel(job.job_id, ref)
    assert stage.waiting() == 1
    assert stage.liveness(job) in (Liveness.ABSENT, Liveness.GONE)
    assert stage.liveness(other) is Liveness.WAITING


def test_a_kind_and_a_reference_that_name_the_job(stage: Stage) -> None:
    job = spec()
    assert str(job.job_id) in stage.executor.submit(job)
    assert stage.executor.kind


def test_the_runner_is_told_all_of_the_model(stage: Stage) -> None:
    job = spec().model_copy(update={"model": INSTALLED})
    stage.executor.submit(job)
    assert stage.told(job.job_id) == job


def test_what_is_kept_for_an_ended_job_is_released_once_no_runner_needs_it(stage: Stage) -> None:
    job = spec()
    ref = stage.executor.submit(job)
    stage.start(job.job_id)
    stage.vanish(job.job_id)
    assert stage.executor.release(job.job_id, ref)
    assert stage.executor.release(job.job_id, ref)
    assert stage.executor.release(new_id(), None)
