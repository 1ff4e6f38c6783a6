"""What every executor promises, held against the in-memory twin and the local one on real Redis.

``tests/cluster/test_executor.py`` holds the executor of a cluster to the same tests, on a real API server.
"""

import zlib
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from redis import Redis
from rq.job import Job
from rq.serializers import JSONSerializer

from dreamforge.spec import RenderSpec
from dreamforge.transport import names
from dreamforge_api.execution.base import Liveness, Unreachable
from dreamforge_api.execution.local import LocalExecutor
from dreamforge_api.execution.memory import MemoryExecutor
from dreamforge_api.worker.ingest import new_id
from tests.contract.executor_kit import *  # noqa: F403 - the suite
from tests.contract.executor_kit import Stage, spec


def _memory(*, retries_itself: bool) -> Stage:
    executor = MemoryExecutor(retries_itself=retries_itself)
    return Stage(
        executor,
        executor.start,
        executor.vanish,
        lambda: sum(known is Liveness.WAITING for known in executor.jobs.values()),
        lambda job_id: executor.specs[job_id],
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

    def told(job_id: UUID) -> RenderSpec:
        queued = Job.fetch(names.render_rq_id(job_id), connection=redis, serializer=JSONSerializer)
        return RenderSpec.model_validate_json(queued.args[0])

    return Stage(LocalExecutor(redis), start, vanish, waiting, told)


@pytest.fixture(params=["memory", "memory-retrying", "local"])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    if request.param.startswith("memory"):
        yield _memory(retries_itself=request.param != "memory")
        return
    redis = Redis.from_url(request.getfixturevalue("redis_db"))
    yield _local(redis)
    redis.close()


def test_redis_away_is_try_later() -> None:
    executor = LocalExecutor(Redis(host="127.0.0.1", port=1, socket_connect_timeout=0.2))
    for call in (
        lambda: executor.submit(spec()),
        lambda: executor.cancel(new_id(), None),
        lambda: executor.liveness(new_id(), None),
    ):
        with pytest.raises(Unreachable, match="Redis"):
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
    executor.cancel(job.job_id, None)
    assert executor.liveness(job.job_id, None) is Liveness.ABSENT
    executor.submit(job)
    redis.hdel(key, "status")
    redis.delete(f"rq:queue:{names.RENDER_QUEUE}")
    assert executor.liveness(job.job_id, None) is Liveness.GONE
    executor.submit(job)
    assert executor.liveness(job.job_id, None) is Liveness.WAITING
    redis.close()
