"""G1: what 100,000 jobs in the database cost a request that has nothing to do with most of them. G2: the plans.

One database and one API process for each size, side by side. The sizes take turns request by request, so whatever
else the machine does hits all of them; one request at a time, so that it is measured and not a queue before it.
"""

import json
import random
import secrets
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from string import ascii_lowercase
from uuid import UUID

import psycopg

from benchmarks import history, plans
from benchmarks.api import real_api
from benchmarks.harness import Absolute, Comparison, Result
from benchmarks.http_load import get, post
from benchmarks.plain_client import Line, first_event_ms
from benchmarks.stack import Servers
from dreamforge.models import SKETCH
from dreamforge_api.parameters import cursor_of
from tests.servers.postgres import plain

SIZES = (1_000, 10_000, 100_000)
TARGET = 1.15
#: Rows a statement may look at for nothing: a queue's length and a page's worth, never the history.
MOST_WASTED = 1000
#: A round ends after so many requests to each size, or so many seconds.
REQUESTS_A_ROUND = 150
SECONDS_A_ROUND = 3.0
_SAMPLE = 1500
_BODY = json.dumps({"type": "generate", "prompt": "an old-growth forest at dawn", "labels": {"request": "bench"}})


@dataclass
class _Size:
    """One API over one database."""

    url: str
    port: int
    line: Line
    connection: psycopg.Connection
    finished: list[UUID]
    queued: list[UUID]
    deep: UUID
    newest: UUID

    def forget_new(self) -> None:
        """Remove what was posted: every round begins with the same jobs."""
        self.connection.execute("DELETE FROM jobs WHERE id > %s", (self.newest,))


#: From a size to what takes one measurement in milliseconds, given its number.
Prepare = Callable[["_Size"], Callable[[int], float]]
Make = Callable[[_Size], Callable[[int], bytes]]


def _fixed(path: Callable[[_Size], str]) -> Make:
    def make(size: _Size) -> Callable[[int], bytes]:
        request = get(path(size))
        return lambda _: request

    return make


def _some(jobs: Callable[[_Size], list[UUID]], path: str) -> Make:
    """Another job every time, the same ones in every round: a small database has all its pages in memory, too."""

    def make(size: _Size) -> Callable[[int], bytes]:
        requests = [get(path.format(job)) for job in jobs(size)[:REQUESTS_A_ROUND]]
        return lambda number: requests[number % len(requests)]

    return make


def _post(_: _Size) -> Callable[[int], bytes]:
    request = post("/v1/jobs", _BODY.encode())
    return lambda _: request


def _post_once(_: _Size) -> Callable[[int], bytes]:
    return lambda _: post("/v1/jobs", _BODY.encode(), f"Idempotency-Key: {secrets.token_hex(16)}\r\n")


REQUESTS: dict[str, tuple[int, Make]] = {
    "POST a job": (202, _post),
    "POST with an Idempotency-Key": (202, _post_once),
    "GET a finished job": (200, _some(lambda size: size.finished, "/v1/jobs/{}")),
    "GET a queued job, with position and eta": (200, _some(lambda size: size.queued, "/v1/jobs/{}")),
    "GET progress": (200, _some(lambda size: size.finished, "/v1/jobs/{}/progress")),
    "GET logs": (200, _some(lambda size: size.finished, "/v1/jobs/{}/logs")),
    "GET artifacts": (200, _some(lambda size: size.finished, "/v1/jobs/{}/artifacts")),
    "list: first page": (200, _fixed(lambda _: "/v1/jobs")),
    "list: deep page": (200, _fixed(lambda size: f"/v1/jobs?cursor={cursor_of(size.deep)}")),
    "list: by status": (200, _fixed(lambda _: "/v1/jobs?status=failed")),
    "list: by model": (200, _fixed(lambda _: f"/v1/jobs?model_id={SKETCH.id}")),
    "list: by status and model": (200, _fixed(lambda _: f"/v1/jobs?status=succeeded&model_id={SKETCH.id}")),
    "list: by a rare label": (200, _fixed(lambda _: "/v1/jobs?label=project%3Drare")),
    "list: by a common label": (200, _fixed(lambda _: "/v1/jobs?label=project%3Dharbour")),
}


def _asking(status: int, make: Make) -> Prepare:
    def prepare(size: _Size) -> Callable[[int], float]:
        request = make(size)
        return lambda number: size.line.ask(request(number), status)

    return prepare


def _attaching(size: _Size) -> Callable[[int], float]:
    """From asking for a stream to its first event; a job is seldom asked for twice while its events are in memory."""
    return lambda number: first_event_ms(size.port, size.finished[number % len(size.finished)])


@contextmanager
def _sizes(servers: Servers) -> Iterator[list[_Size]]:
    with ExitStack() as stack:
        made = []
        for size in SIZES:
            url = stack.enter_context(history.filled(servers, size))
            own = replace(servers, database_url=url)
            _, port = stack.enter_context(real_api(own, name=f"api-{size}"))
            connection = stack.enter_context(psycopg.connect(plain(url), autocommit=True))
            made.append(_size(url, port, connection))
        yield made


def _size(url: str, port: int, connection: psycopg.Connection) -> _Size:
    def ids(status: str) -> list[UUID]:
        found = connection.execute("SELECT id FROM jobs WHERE status = %s ORDER BY id", (status,)).fetchall()
        return [row[0] for row in found]

    finished, queued = ids("succeeded"), ids("queued")
    deep = finished[len(finished) // 3]
    some = random.sample(finished, min(_SAMPLE, len(finished)))
    return _Size(url, port, Line(port), connection, some, queued, deep, queued[-1])


def _compare(name: str, what: str, sizes: list[_Size], prepare: Prepare, rounds: int) -> Result:
    result = Comparison(name, f"{what}: p50 with 100,000 jobs against 1,000", "ms", TARGET, lower_is_better=True)
    began = time.monotonic()
    measures = [prepare(size) for size in sizes]
    _round(measures, REQUESTS_A_ROUND, 0)  # connections are open, statements prepared, pages in memory
    between: list[float] = []
    for number in range(rounds):
        medians = _round(measures, REQUESTS_A_ROUND, (number + 1) * REQUESTS_A_ROUND)
        for values, median in zip((result.reference, between, result.ours), medians, strict=True):
            values.append(median)
        for size in sizes:
            size.forget_new()
    result.seconds = time.monotonic() - began
    result.notes.append(f"p50 with 10,000 jobs: {statistics.median(between):.3g} ms")
    return result


def _round(measures: list[Callable[[int], float]], count: int, first: int) -> list[float]:
    """The median of each; they take turns in an order drawn anew each time."""
    found: list[list[float]] = [[] for _ in measures]
    until = time.monotonic() + SECONDS_A_ROUND
    for number in range(first, first + count):
        for which in random.sample(range(len(measures)), len(measures)):
            found[which].append(measures[which](number))
        if time.monotonic() > until:
            break
    return [statistics.median(values) for values in found]


def _plans(size: _Size) -> list[Result]:
    found = plans.plans(size.url)
    scans = Absolute("G2", f"tables read from end to end by {len(found)} hot statements, 100,000 jobs", "tables", 0)
    scans.ours.append(float(sum(len(plan.scanned) for plan in found)))
    scans.notes += [f"{plan.name} reads all of {', '.join(plan.scanned)}" for plan in found if plan.scanned]
    waste = Absolute("G2w", "rows a hot statement looks at for nothing, at most", "rows", MOST_WASTED)
    worst = max(found, key=lambda plan: plan.wasted)
    waste.ours.append(float(worst.wasted))
    waste.notes.append(f"the most: {worst.name}")
    return [scans, waste]


def run(servers: Servers, pairs: int = 5) -> list[Result]:
    """Measure G1 and G2."""
    with _sizes(servers) as sizes:
        results = _plans(sizes[-1])
        kinds = {what: _asking(status, make) for what, (status, make) in REQUESTS.items()}
        kinds["SSE attach"] = _attaching
        for letter, (what, prepare) in zip(ascii_lowercase, kinds.items(), strict=False):
            results.append(_compare(f"G1{letter}", what, sizes, prepare, pairs))
        for size in sizes:
            size.line.close()
    return results
