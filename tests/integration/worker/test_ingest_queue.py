"""The ingest side of the queue on real Redis and Postgres: backlogs, and a bad message among good ones."""

import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import pytest
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from dreamforge.db import events
from dreamforge.db.events import EventRow
from dreamforge.events import Ack, EventBatch, Outcome, Verdict
from dreamforge.transport import names
from dreamforge.transport.redis import RedisEventSink
from dreamforge_api.worker import tasks
from dreamforge_api.worker.ingest import new_id
from dreamforge_api.worker.queue import IngestQueue, IngestWorker
from dreamforge_api.worker.retry import RetryPolicy
from dreamforge_api.worker.signals import Signals
from tests.jobs import NOW, Runner, create, rows


class Pipe:
    """The real queue with the real worker at its end, worked on demand."""

    def __init__(self, engine: Engine, url: str) -> None:
        self.engine = engine
        self.redis = Redis.from_url(url)
        self.sink = RedisEventSink(url)
        self.queue = Queue(names.EVENTS_QUEUE, connection=self.redis, serializer=JSONSerializer)
        self.install(engine, threading.Event())

    def install(self, engine: Engine, stop: threading.Event) -> None:
        tasks.install(tasks.Ingestor(engine, Signals(self.redis), RetryPolicy(), stop))

    def in_hand(self) -> int:
        """Messages that a worker took and neither committed nor filed."""
        count = self.redis.llen(self.queue.intermediate_queue_key)
        assert isinstance(count, int)
        return count

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


def test_a_full_disk_is_waited_out_and_makes_no_dead_letters(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under COPY it is the driver's own error; two healthy messages were filed for it, without an ack, for ever."""
    monkeypatch.setattr(tasks, "_BACKOFF_SECONDS", 0.01)
    real, full = events._copy, iter(range(2))

    def copy(*given: Any) -> None:
        if next(full, None) is not None:
            raise psycopg.errors.DiskFull("could not extend file")
        real(*given)

    monkeypatch.setattr(events, "_copy", copy)
    one, two = Runner(create(pipe.engine), "run-full-1"), Runner(create(pipe.engine), "run-full-2")
    pipe.sink.send(one.batch(one.started()))
    pipe.sink.send(two.batch(two.started()))
    pipe.work()
    assert next(full, None) is None, "the disk was full twice"
    assert [pipe.ack(runner).verdict for runner in (one, two)] == [Verdict.COMMITTED] * 2
    assert (pipe.queue.failed_job_registry.count, pipe.in_hand()) == (0, 0)


def event_row(**fields: Any) -> EventRow:
    row = EventRow(1, NOW, "log", None, 1, "run-1", 1, "info", "note", "words nobody may read", "{}")
    return row._replace(**fields)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [({"level": "loud"}, IntegrityError), ({"payload": "{"}, DataError), ({"message": "a\x00b"}, DataError)],
)
def test_what_the_database_refuses_in_a_copy_is_said_without_the_row(
    engine: Engine, fields: dict[str, Any], expected: type[DBAPIError]
) -> None:
    job_id = create(engine)
    with pytest.raises(expected) as caught, engine.begin() as connection:
        events.copy_rows(connection, job_id, "generate", [event_row(), event_row(seq=2, **fields)])
    assert "nobody may read" not in str(caught.value)
    assert caught.value.__suppress_context__
    assert rows(engine, "SELECT 1 FROM events WHERE job_id = :id", id=job_id) == []


def test_a_worker_that_stops_while_the_database_is_away_leaves_its_messages_to_the_next(pipe: Pipe) -> None:
    stop = threading.Event()
    stopping = IngestQueue(pipe.redis, stop)

    def away() -> psycopg.Connection[Any]:
        stopping.on_signal(signal.SIGTERM, None)
        raise psycopg.OperationalError("nobody listens there")

    pipe.install(create_engine("postgresql+psycopg://", creator=away), stop)
    runners = [Runner(create(pipe.engine), f"run-left-{number}") for number in range(3)]
    for runner in runners:
        pipe.sink.send(runner.batch(runner.started()))
    stopping.run()
    assert (pipe.queue.failed_job_registry.count, pipe.in_hand()) == (0, 3)
    pipe.install(pipe.engine, threading.Event())
    pipe.work()
    assert [pipe.ack(runner).verdict for runner in runners] == [Verdict.COMMITTED] * 3
    assert (pipe.queue.failed_job_registry.count, pipe.in_hand()) == (0, 0)


def test_a_worker_that_stops_among_messages_taken_singly_leaves_the_rest(pipe: Pipe) -> None:
    stopping = IngestQueue(pipe.redis, threading.Event())
    taken: list[int] = []

    def take(texts: Sequence[str]) -> None:
        taken.append(len(texts))
        if len(texts) > 1:
            raise ValueError("not together")
        stopping.on_signal(signal.SIGTERM, None)

    tasks.install(take)
    for _ in range(3):
        pipe.queue.enqueue_call(names.INGEST_FUNCTION, args=("{}",), result_ttl=0)
    stopping.run()
    assert taken == [3, 1]
    assert (pipe.queue.failed_job_registry.count, pipe.in_hand()) == (0, 2)


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
