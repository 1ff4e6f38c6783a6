"""S1: deliveries to 1,000 readers of one job against a bare broadcast in memory. S2: what readers cost the database.

S1 is a closed loop: a batch of events is published as soon as every reader has the batch before the last one, so
the CPU is the limit on both sides and neither can run ahead. Ours goes in through the database, as ingest does it.
"""

import http.client
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from redis import Redis

from benchmarks.api import bare, real_api
from benchmarks.harness import Comparison, Result, compare
from benchmarks.processes import Program
from benchmarks.query_counter import QueryCounter, counting
from benchmarks.stack import Servers
from benchmarks.subscribers import Subscribers, subscribed
from dreamforge.db.engine import open_engine
from dreamforge.events import RunnerEvent, Verdict
from dreamforge_api.worker.ingest import ingest_batch
from dreamforge_api.worker.retry import RetryPolicy
from dreamforge_api.worker.signals import Signals
from tests.jobs import Runner, create

READERS = 1000
BATCH = 10
SECONDS = 4.0
_IN_FLIGHT = 2
#: S2: events at this pace for a part of a window that is the same for both sides.
_WINDOW_SECONDS = 7.0
_WINDOW_BATCHES = 30
_GAP_SECONDS = 0.1


class JobFeed:
    """A running job whose events are committed and announced as ingest does it."""

    def __init__(self, servers: Servers) -> None:
        self._engine = open_engine(servers.database_url)
        self._redis = Redis.from_url(servers.redis_url)
        self._signals = Signals(self._redis)
        self.job_id: UUID = create(self._engine, count=100)
        self._runner = Runner(self.job_id)
        self._step = 0
        self._begun = self._commit(self._runner.started(), self._runner.item(0))

    @property
    def path(self) -> str:
        """Of the stream, after the events that stand there already."""
        return f"/v1/jobs/{self.job_id}/progress/stream?after={self._begun}"

    def publish(self, events: int) -> None:
        """One batch."""
        made = [self._runner.progress(0, (self._step + n) % 30) for n in range(events)]
        self._step += events
        self._commit(*made)

    def close(self) -> None:
        self._redis.close()
        self._engine.dispose()

    def _commit(self, *events: RunnerEvent) -> int:
        done = ingest_batch(self._engine, self._runner.batch(*events), RetryPolicy())
        assert done.verdict is Verdict.COMMITTED
        self._signals.announce(self.job_id, done.job_seq)
        return done.job_seq


class BareFeed:
    """Asks the bare app to put a batch into its queues."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port)

    def publish(self, events: int) -> None:
        self._connection.request("POST", f"/feed?events={events}")
        answer = self._connection.getresponse()
        assert answer.read() == str(READERS).encode()

    def close(self) -> None:
        self._connection.close()


@dataclass
class _Side:
    """One server, its readers, and who used how much CPU."""

    server: Program
    readers: Subscribers
    publish: Callable[[int], None]
    batch: int
    cpu_us: list[float] = field(default_factory=list)
    reader_shares: list[float] = field(default_factory=list)

    def rate(self) -> float:
        """Deliveries a second."""
        base = self.readers.level
        self.publish(self.batch)
        self.readers.wait_for(base + 1)
        start = base = self.readers.level
        cpu, reader_cpu, began = self.server.cpu_seconds(), self.readers.report["cpu"], time.monotonic()
        sent = 0
        while time.monotonic() - began < SECONDS:
            self.publish(self.batch)
            sent += 1
            self.readers.wait_for(base + max(0, sent - _IN_FLIGHT + 1))
        seconds = self.readers.wait_for(start + sent) - began
        delivered = sent * self.batch * READERS
        self.cpu_us.append((self.server.cpu_seconds() - cpu) / delivered * 1e6)
        self.reader_shares.append((self.readers.report["cpu"] - reader_cpu) / seconds)
        return delivered / seconds

    def note(self, who: str) -> str:
        return (
            f"{who}: server CPU {statistics.median(self.cpu_us):.2f} us a delivery, "
            f"readers {statistics.median(self.reader_shares):.2f} cores"
        )


def _deliveries(servers: Servers, name: str, what: str, batch: int, pairs: int) -> Result:
    feed = JobFeed(servers)
    with (
        real_api(servers) as (api, port),
        bare("bare_broadcast", servers) as (app, bare_port),
        subscribed(port, feed.path, READERS, batch, servers.folder) as our_readers,
        subscribed(bare_port, "/stream", READERS, batch, servers.folder) as bare_readers,
    ):
        bare_feed = BareFeed(bare_port)
        ours = _Side(api, our_readers, feed.publish, batch)
        reference = _Side(app, bare_readers, bare_feed.publish, batch)
        result = Comparison(name, what, "deliveries/s", 0.70)
        compare(result, ours.rate, reference.rate, pairs)
        result.notes += [ours.note("ours"), reference.note("bare")]
        bare_feed.close()
    feed.close()
    return result


def _queries(servers: Servers, pairs: int) -> Result:
    result = Comparison("S2", "database queries with 1,000 readers against one", "queries", 1.1, lower_is_better=True)
    with counting(servers.database_url) as (counter, url), real_api(servers, database_url=url) as (_, port):
        compare(
            result,
            lambda: _queries_of(servers, counter, port, READERS),
            lambda: _queries_of(servers, counter, port, 1),
            pairs,
        )
    return result


def _queries_of(servers: Servers, counter: QueryCounter, port: int, readers: int) -> float:
    """Statements of the API process while ``readers`` come, follow the same events, and stay a fixed time."""
    feed = JobFeed(servers)
    before, until = counter.count, time.monotonic() + _WINDOW_SECONDS
    with subscribed(port, feed.path, readers, BATCH, servers.folder) as followers:
        for number in range(_WINDOW_BATCHES):
            feed.publish(BATCH)
            followers.wait_for(number)
            time.sleep(_GAP_SECONDS)
        followers.wait_for(_WINDOW_BATCHES)
        time.sleep(max(0.0, until - time.monotonic()))
        counted = counter.count - before
    feed.close()
    return float(counted)


def run(servers: Servers, pairs: int = 5) -> list[Result]:
    """Measure S1 and S2."""
    many, one = f"events to {READERS} readers, {BATCH} a batch", f"events to {READERS} readers, one by one"
    return [
        _deliveries(servers, "S1", many, BATCH, pairs),
        _deliveries(servers, "S1a", one, 1, min(pairs, 3)),
        _queries(servers, min(pairs, 3)),
    ]
