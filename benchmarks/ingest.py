"""E1: events emitted to committed, against the slower of bare Redis and bare COPY. E2: against RQ job-per-event.

Both sides write the same public event rows into the same table with its real indexes; fsync is as the server has it.
"""

import json
import threading
import time
from collections.abc import Callable
from typing import Any

from redis import Redis
from rq import Queue, SimpleWorker
from rq.serializers import JSONSerializer
from sqlalchemy import Engine

from benchmarks.harness import Comparison, compare
from benchmarks.stack import Servers
from dreamforge.db.engine import open_engine
from dreamforge.events import EventBatch
from dreamforge.transport import names
from dreamforge.transport.redis import RedisEventSink
from dreamforge_api.worker import tasks
from dreamforge_api.worker.queue import IngestWorker
from dreamforge_api.worker.retry import RetryPolicy
from dreamforge_api.worker.signals import Signals
from tests.jobs import Runner, create, rows

EVENTS = 20_000
BATCH = 200
JOB_PER_EVENT = 300
_COLUMNS = "job_id, seq, ts, type, step, item_index, attempt, level, code, message, payload"


class IngestBench:
    """The two sides over one pair of servers."""

    def __init__(self, servers: Servers) -> None:
        self._engine: Engine = open_engine(servers.database_url)
        self._redis = Redis.from_url(servers.redis_url)
        self._sink = RedisEventSink(servers.redis_url)
        self._queue = Queue(names.EVENTS_QUEUE, connection=self._redis, serializer=JSONSerializer)
        signals = Signals(self._redis)
        tasks.install(tasks.Ingestor(self._engine, signals, RetryPolicy(), threading.Event()))

    def batches(self, events: int, size: int) -> list[EventBatch]:
        """Progress events of one job, as a runner would batch them."""
        runner = Runner(create(self._engine, count=100))
        made = [runner.batch(runner.started(), runner.item(0))]
        for start in range(0, events, size):
            made.append(runner.batch(*[runner.progress(0, n % 30) for n in range(start, min(start + size, events))]))
        return made

    def ours(self, events: int = EVENTS, size: int = BATCH) -> float:
        """Events per second from handing batches to the sink to the last commit."""
        batches = self.batches(events, size)
        begin = time.perf_counter()
        for batch in batches:
            self._sink.send(batch)
        self._work()
        return events / (time.perf_counter() - begin)

    def _work(self) -> None:
        worker = IngestWorker(
            [self._queue], connection=self._redis, serializer=JSONSerializer, log_job_description=False
        )
        worker.work(logging_level="WARNING", burst=True)

    def bare(self) -> float:
        """The smaller of the two bare rates, for the same rows and batches."""
        lines = self._lines(EVENTS)
        return min(_rate(EVENTS, lambda: self._redis_loop(lines)), _rate(EVENTS, lambda: self._copy_loop(lines)))

    def job_per_event(self) -> float:
        """RQ as it is mostly used: stock worker without forks, one job, one row and one commit for each event."""
        queue = Queue("bench-one", connection=self._redis, serializer=JSONSerializer)
        _single.clear()
        _single.append(self._engine)
        lines = self._lines(JOB_PER_EVENT)
        begin = time.perf_counter()
        for line in lines:
            queue.enqueue(insert_one, [str(part) for part in line], result_ttl=0)
        worker = SimpleWorker([queue], connection=self._redis, serializer=JSONSerializer, log_job_description=False)
        worker.work(logging_level="WARNING", burst=True)
        return JOB_PER_EVENT / (time.perf_counter() - begin)

    def _lines(self, count: int) -> list[tuple[object, ...]]:
        """Rows as ingest writes them: taken from what it wrote."""
        batches = self.batches(count, BATCH)
        tasks_done = rows(self._engine, "SELECT id FROM jobs ORDER BY id DESC LIMIT 1")[0]["id"]
        payload = json.dumps(
            {"progress": 0.25, "item_progress": 0.5, "stage": "denoising", "step_index": 15, "steps_total": 30}
        )
        stamp = batches[0].events[0].ts.isoformat()
        fixed = ("generate", 0, 1, "info", "item.progress", "25%", payload)
        return [(tasks_done, seq, stamp, "progress", *fixed) for seq in range(1, count + 1)]

    def _redis_loop(self, lines: list[tuple[object, ...]]) -> None:
        encoded = [json.dumps([str(part) for part in line]) for line in lines]
        key = "bench:bare"
        for start in range(0, len(encoded), BATCH):
            pipe = self._redis.pipeline(transaction=False)
            for line in encoded[start : start + BATCH]:
                pipe.xadd(key, {"e": line})
            pipe.execute()
        last: bytes | str = "0"
        while found := self._redis.xread({key: last}, count=BATCH):
            last = _last_id(found)
        self._redis.delete(key)

    def _copy_loop(self, lines: list[tuple[object, ...]]) -> None:
        with self._engine.connect() as connection:
            driver = connection.connection.driver_connection
            assert driver is not None
            with driver.cursor() as cursor:
                for start in range(0, len(lines), BATCH):
                    with cursor.copy(f"COPY events ({_COLUMNS}) FROM STDIN") as copy:
                        for line in lines[start : start + BATCH]:
                            copy.write_row(line)
                    driver.commit()


_single: list[Engine] = []


def insert_one(line: list[str]) -> None:
    """The reference's task: one row, one commit."""
    with _single[0].begin() as connection:
        connection.exec_driver_sql(
            f"INSERT INTO events ({_COLUMNS}) VALUES ({', '.join(['%s'] * len(line))})", tuple(line)
        )


def _last_id(found: Any) -> bytes:
    """The id of the newest entry of an XREAD answer (a dictionary or a list, by protocol version)."""
    entries = next(iter(found.values()))[0] if isinstance(found, dict) else found[0][1]
    newest: bytes = entries[-1][0]
    return newest


def _rate(count: int, work: Callable[[], None]) -> float:
    begin = time.perf_counter()
    work()
    return count / (time.perf_counter() - begin)


def run(servers: Servers, pairs: int = 5) -> list[Comparison]:
    """Measure E1 and E2."""
    bench = IngestBench(servers)
    one = Comparison("E1", "events emitted to committed", "events/s", 0.40)
    two = Comparison("E2", "the same against RQ job-per-event", "events/s", 50)
    return [compare(one, bench.ours, bench.bare, pairs), compare(two, bench.ours, bench.job_per_event, pairs)]
