"""The ingest side of the queue on real Redis and Postgres: backlogs, and a bad message among good ones."""

import signal
import threading
from collections.abc import Iterator

import pytest
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer
from sqlalchemy import Engine

from dreamforge.events import Ack, EventBatch, Outcome, Verdict
from dreamforge.transport import names
from dreamforge.transport.redis import RedisEventSink
from dreamforge_api.worker import tasks
from dreamforge_api.worker.ingest import new_id
from dreamforge_api.worker.queue import IngestQueue, IngestWorker
from dreamforge_api.worker.retry import RetryPolicy
from dreamforge_api.worker.signals import Signals
from tests.jobs import Runner, create, rows


class Pipe:
    """The real queue with the real worker at its end, worked on demand."""

    def __init__(self, engine: Engine, url: str) -> None:
        self.engine = engine
        self.redis = Redis.from_url(url)
        self.sink = RedisEventSink(url)
        self.queue = Queue(names.EVENTS_QUEUE, connection=self.redis, serializer=JSONSerializer)
        tasks.install(tasks.Ingestor(engine, Signals(self.redis), RetryPolicy(), threading.Event()))

    def work(self) -> None:
        worker = IngestWorker([self.queue], connection=self.redis, serializer=JSONSerializer)
        worker.work(burst=True, logging_level="CRITICAL")

    def ack(self, runner: Runner) -> Ack:
        found = self.sink.ack(runner.attempt_id)
        assert found is not None
        return found

    def close(self) -> None:
        self.sink.close()
        self.redis.close()


@pytest.fixture
def pipe(engine: Engine, redis_db: str) -> Iterator[Pipe]:
    opened = Pipe(engine, redis_db)
    yield opened
    opened.close()


def test_a_signal_that_comes_before_there_is_a_worker_ends_it_all_the_same(redis_db: str) -> None:
    stop = threading.Event()
    with Redis.from_url(redis_db) as connection:

        class Late(IngestQueue):
            def _worker(self) -> IngestWorker:
                self.on_signal(signal.SIGTERM, None)
                return super()._worker()

        queue = Late(connection, stop)
        thread = threading.Thread(target=queue.run, daemon=True)
        thread.start()
        thread.join(20)
        assert not thread.is_alive()


def transactions(engine: Engine) -> int:
    """How many distinct transactions wrote events."""
    return len(rows(engine, "SELECT DISTINCT xmin::text FROM events"))


def test_a_backlog_of_one_attempt_is_few_transactions_and_every_event_once(pipe: Pipe) -> None:
    with pipe.engine.begin() as connection:
        connection.exec_driver_sql("TRUNCATE jobs CASCADE")
    runner = Runner(create(pipe.engine))
    pipe.sink.send(runner.batch(runner.started(), runner.item(0)))
    for step in range(20):
        pipe.sink.send(runner.batch(runner.progress(0, step)))
    pipe.sink.send(runner.batch(runner.stored(0), runner.gpu(), runner.finished(Outcome.SUCCEEDED, done=1)))
    pipe.work()
    seqs = [row["seq"] for row in rows(pipe.engine, "SELECT seq FROM events ORDER BY seq")]
    assert seqs == list(range(1, len(seqs) + 1))
    assert rows(pipe.engine, "SELECT status FROM jobs") == [{"status": "succeeded"}]
    assert transactions(pipe.engine) <= 4, "22 messages"
    assert pipe.ack(runner) == Ack(attempt_id=runner.attempt_id, seq=runner.seq, verdict=Verdict.COMMITTED)
    assert pipe.redis.keys("rq:job:*") == []
    assert pipe.redis.llen("rq:queue:events:intermediate") == 0


def test_a_message_that_is_no_batch_keeps_none_of_its_neighbours(pipe: Pipe) -> None:
    first, second = Runner(create(pipe.engine), "run-1"), Runner(create(pipe.engine), "run-2")
    pipe.sink.send(first.batch(first.started()))
    pipe.queue.enqueue_call(names.INGEST_FUNCTION, args=('{"no": "batch"}',), result_ttl=0)
    pipe.sink.send(second.batch(second.started()))
    pipe.sink.send(first.batch(first.item(0)))
    pipe.work()
    assert (pipe.ack(first).seq, pipe.ack(second).seq) == (2, 1)
    assert pipe.queue.failed_job_registry.count == 1
    assert pipe.redis.llen("rq:queue:events:intermediate") == 0


def test_what_a_killed_worker_had_in_hand_is_ingested_by_the_next_and_is_no_dead_letter(pipe: Pipe) -> None:
    runner = Runner(create(pipe.engine), "run-orphan")
    pipe.sink.send(runner.batch(runner.started(), runner.item(0)))
    pipe.sink.send(runner.batch(runner.progress(0, 3)))
    for _ in range(2):  # taken off the queue, and then that worker was no more
        assert Queue.dequeue_any([pipe.queue], None, connection=pipe.redis, serializer=JSONSerializer)
    pipe.work()
    assert pipe.ack(runner) == Ack(attempt_id="run-orphan", seq=runner.seq, verdict=Verdict.COMMITTED)
    assert pipe.redis.llen("rq:queue:events:intermediate") == 0
    assert pipe.redis.zcard("rq:failed:events") == 0


def test_a_batch_that_breaks_the_protocol_is_refused_and_filed_alone(pipe: Pipe) -> None:
    good, bad = Runner(create(pipe.engine), "run-good"), Runner(create(pipe.engine), "run-bad")
    pipe.sink.send(bad.batch(bad.item(0)))
    pipe.sink.send(good.batch(good.started()))
    pipe.work()
    assert pipe.ack(bad).verdict is Verdict.REFUSED_BAD_BATCH
    assert pipe.ack(good).verdict is Verdict.COMMITTED
    assert pipe.queue.failed_job_registry.count == 1


def test_batches_are_joined_only_where_they_chain() -> None:
    def sizes(batches: list[EventBatch]) -> list[int]:
        return [len(batch.events) for batch in tasks.chained(batches)]

    job = new_id()
    one, two = Runner(job, "run-1"), Runner(job, "run-2")
    a, b, c = one.batch(one.started()), one.batch(one.item(0)), one.batch(one.progress(0, 1))
    other = two.batch(two.started())
    assert sizes([a, other, b, c]) == [3, 1]
    assert sizes([a, c, b]) == [1, 1, 1]
    assert sizes([a, a, b]) == [1, 2]
    assert sizes([]) == []
