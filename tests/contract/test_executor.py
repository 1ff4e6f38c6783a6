"""What every executor promises, held against each of them: the in-memory twin and the local one on real Redis."""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from redis import Redis

from dreamforge.spec import ModelRef, RenderParams, RenderSpec
from dreamforge.transport import names
from dreamforge_api.execution.base import Executor, Liveness, TryLater
from dreamforge_api.execution.local import LocalExecutor
from dreamforge_api.execution.memory import MemoryExecutor
from dreamforge_api.worker.ingest import new_id


@dataclass
class Stage:
    """An executor, and a hand to play its runner with."""

    executor: Executor
    start: Callable[[UUID], None]
    vanish: Callable[[UUID], None]
    waiting: Callable[[], int]


def _memory() -> Stage:
    executor = MemoryExecutor()
    return Stage(
        executor,
        executor.start,
        executor.vanish,
        lambda: sum(known is Liveness.WAITING for known in executor.jobs.values()),
    )


def _local(redis: Redis) -> Stage:
    queue = f"rq:queue:{names.RENDER_QUEUE}"

    def start(job_id: UUID) -> None:
        redis.lrem(queue, 1, names.render_rq_id(job_id))
        redis.set(names.lease_key(job_id), "run-1")

    def vanish(job_id: UUID) -> None:
        redis.delete(names.lease_key(job_id))

    def waiting() -> int:
        count = redis.llen(queue)
        assert isinstance(count, int)
        return count

    return Stage(LocalExecutor(redis), start, vanish, waiting)


@pytest.fixture(params=["memory", "local"])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    if request.param == "memory":
        yield _memory()
        return
    redis = Redis.from_url(request.getfixturevalue("redis_db"))
    yield _local(redis)
    redis.close()


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
    assert stage.executor.liveness(job.job_id) is Liveness.WAITING


def test_submitting_what_runs_changes_nothing(stage: Stage) -> None:
    job = spec()
    stage.executor.submit(job)
    stage.start(job.job_id)
    stage.executor.submit(job)
    assert stage.waiting() == 0
    assert stage.executor.liveness(job.job_id) is Liveness.ALIVE


def test_submitting_what_is_gone_starts_it_anew(stage: Stage) -> None:
    job = spec()
    stage.executor.submit(job)
    stage.start(job.job_id)
    stage.vanish(job.job_id)
    assert stage.executor.liveness(job.job_id) is Liveness.GONE
    stage.executor.submit(job)
    assert stage.executor.liveness(job.job_id) is Liveness.WAITING
    assert stage.waiting() == 1


def test_the_unknown_is_absent_and_canceling_it_harmless(stage: Stage) -> None:
    stranger = new_id()
    assert stage.executor.liveness(stranger) is Liveness.ABSENT
    stage.executor.cancel(stranger)
    stage.executor.cancel(stranger)
    assert stage.executor.liveness(stranger) is Liveness.ABSENT


def test_a_waiting_job_that_is_canceled_never_starts(stage: Stage) -> None:
    job, other = spec(), spec()
    stage.executor.submit(job)
    stage.executor.submit(other)
    stage.executor.cancel(job.job_id)
    assert stage.waiting() == 1
    assert stage.executor.liveness(job.job_id) is Liveness.ABSENT
    assert stage.executor.liveness(other.job_id) is Liveness.WAITING


def test_a_kind_and_a_reference_that_name_the_job(stage: Stage) -> None:
    job = spec()
    assert str(job.job_id) in stage.executor.submit(job)
    assert stage.executor.kind


def test_redis_away_is_try_later() -> None:
    executor = LocalExecutor(Redis(host="127.0.0.1", port=1, socket_connect_timeout=0.2))
    for call in (
        lambda: executor.submit(spec()),
        lambda: executor.cancel(new_id()),
        lambda: executor.liveness(new_id()),
    ):
        with pytest.raises(TryLater, match="Redis"):
            call()


def test_the_queue_holds_json_and_no_pickle(redis_db: str) -> None:
    redis = Redis.from_url(redis_db)
    job = spec()
    LocalExecutor(redis).submit(job)
    stored: Any = redis.hgetall(f"rq:job:{names.render_rq_id(job.job_id)}")
    redis.close()
    assert b"lighthouse" in zlib.decompress(stored[b"data"])
    assert b"lighthouse" not in stored[b"description"]


def test_half_a_record_of_a_wiped_redis_is_no_obstacle(redis_db: str) -> None:
    """Redis was emptied while RQ was about to write to a job's record: what is left has data and no status."""
    redis = Redis.from_url(redis_db)
    executor = LocalExecutor(redis)
    job = spec()
    key = f"rq:job:{executor.submit(job)}"
    redis.hdel(key, "status")
    executor.cancel(job.job_id)
    assert executor.liveness(job.job_id) is Liveness.ABSENT
    executor.submit(job)
    redis.hdel(key, "status")
    redis.delete(f"rq:queue:{names.RENDER_QUEUE}")
    assert executor.liveness(job.job_id) is Liveness.GONE
    executor.submit(job)
    assert executor.liveness(job.job_id) is Liveness.WAITING
    redis.close()
