"""``serve`` while Redis comes late, dies, or loses everything."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from dreamforge.errors import ConfigurationError
from dreamforge.events import ArtifactStored, AttemptFinished, ItemStarted, Outcome
from dreamforge.transport import names
from dreamforge_cli.embedded.redis import EmbeddedRedis
from tests.integration.runner_kit import Ingest, Runner, make_spec, submit, wait_for
from tests.servers import redis as servers


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """A server that a test may stop; not the session's."""
    try:
        server = EmbeddedRedis(tmp_path / "redis")
    except ConfigurationError as missing:
        pytest.skip(str(missing))
    server.start()
    yield server
    server.stop()


def test_redis_may_stop_and_start_under_an_idle_runner(tmp_path: Path, own_redis: EmbeddedRedis):
    url = own_redis.url
    with Runner(tmp_path / "r", "serve", redis_url=url).wait_ready() as runner:
        own_redis.stop()
        wait_for(lambda: "Redis is not reachable" in runner.log)
        assert runner.process.poll() is None
        own_redis.start()
        assert own_redis.url == url, "the test needs the same address"
        with Ingest(url) as ingest:
            spec = make_spec()
            submit(url, spec)
            wait_for(lambda: ingest.of(spec.job_id, AttemptFinished))
        assert runner.stop() == 0


def test_a_job_outlives_a_redis_that_loses_everything(tmp_path: Path, redis_db: str):
    """Wiped in the middle: the events that were in it are sent again, the job goes on, the lease comes back."""
    spec, other, client = make_spec("slow", params={"count": 3}), make_spec(), Redis.from_url(redis_db)
    with Runner(tmp_path / "r", "serve", redis_url=redis_db).wait_ready() as runner, Ingest(redis_db) as ingest:
        submit(redis_db, spec)
        wait_for(lambda: len(ingest.of(spec.job_id, ItemStarted)) == 3)
        servers.empty(redis_db)
        wait_for(lambda: client.get(names.lease_key(spec.job_id)) is not None, what="lease renewed")
        client.set(names.cancel_key(spec.job_id), "1")
        wait_for(lambda: ingest.of(spec.job_id, AttemptFinished), what="end")
        (end,) = ingest.of(spec.job_id, AttemptFinished)
        assert end.outcome is Outcome.CANCELED
        assert len(ingest.of(spec.job_id, ArtifactStored)) == 2
        events = ingest.events(spec.job_id)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        rq_key = f"rq:job:{names.render_rq_id(spec.job_id)}"
        wait_for(lambda: not client.exists(rq_key), what="no half RQ record in the way of another submission")
        submit(redis_db, other)
        wait_for(lambda: ingest.of(other.job_id, AttemptFinished), what="next job")
        assert runner.stop() == 0
    client.close()
