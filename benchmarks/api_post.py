"""J1: POST throughput against a bare app with one INSERT. J3: what a batch of 100 and a replay cost."""

import json
import secrets
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

import psycopg

from benchmarks import http_load
from benchmarks.api import bare, real_api
from benchmarks.harness import Comparison, Result, compare
from benchmarks.http_load import Answers
from benchmarks.processes import Program
from benchmarks.stack import Servers
from tests.servers.postgres import plain

CONNECTIONS = 32
SECONDS = 4.0
#: Costs that should be equal: many short runs in turns tell more than a few long ones.
SLICES = 3
COST_SECONDS = 0.8
KEYS = 600
_PATH = "/v1/jobs"
_BODY = {
    "type": "generate",
    "prompt": "an old-growth forest at dawn",
    "width": 1024,
    "height": 1024,
    "steps": 24,
    "guidance": 7.0,
    "format": "png",
}


@dataclass
class _Side:
    """One server under load, and how busy everyone was."""

    server: Program
    port: int
    answers: list[Answers] = field(default_factory=list)
    server_shares: list[float] = field(default_factory=list)

    def load(self, work: Callable[[int], Answers]) -> Answers:
        before = self.server.cpu_seconds()
        answers = work(self.port)
        self.server_shares.append((self.server.cpu_seconds() - before) / answers.seconds)
        self.answers.append(answers)
        return answers

    def note(self, who: str) -> str:
        def median(values: list[float]) -> float:
            return statistics.median(values)

        return (
            f"{who}: server {median(self.server_shares):.2f} cores, "
            f"client {median([a.client_share for a in self.answers]):.2f} cores, "
            f"p50 {median([a.percentile(0.5) for a in self.answers]):.1f} ms, "
            f"p99 {median([a.percentile(0.99) for a in self.answers]):.1f} ms at {CONNECTIONS} connections"
        )


class PostBench:
    """The real API and the bare app over one database."""

    def __init__(self, servers: Servers, ours: _Side, bare: _Side) -> None:
        self._ours = ours
        self._bare = bare
        self._database = psycopg.connect(plain(servers.database_url), autocommit=True)
        self._one = http_load.post(_PATH, json.dumps(_BODY).encode())
        self._hundred = http_load.post(_PATH, json.dumps({**_BODY, "count": 100}).encode())
        self._keys: list[bytes] = []

    def throughput(self, side: _Side) -> float:
        """Jobs per second."""
        self._empty()
        return side.load(
            lambda port: http_load.for_seconds(port, lambda _: self._one, SECONDS, connections=CONNECTIONS)
        ).rate

    def cost(self, request: bytes) -> float:
        """Milliseconds of wall time per POST at the same load."""
        self._empty()
        answers = http_load.for_seconds(
            self._ours.port, lambda _: request, COST_SECONDS, connections=CONNECTIONS, warm=0.2
        )
        return 1000 / answers.rate

    def first(self) -> float:
        """Milliseconds per POST with keys nobody has used."""
        self._empty()
        body = json.dumps(_BODY).encode()
        self._keys = [
            http_load.post(_PATH, body, f"Idempotency-Key: {secrets.token_hex(16)}\r\n") for _ in range(KEYS)
        ]
        return self.replay()

    def replay(self) -> float:
        """Milliseconds per POST with the keys of :meth:`first` once more."""
        keys = self._keys
        answers = http_load.for_count(self._ours.port, keys.__getitem__, len(keys), connections=CONNECTIONS)
        return 1000 / answers.rate

    def results(self, pairs: int) -> list[Result]:
        one = Comparison("J1", "POST throughput against a bare app with one INSERT", "jobs/s", 0.70)
        compare(one, lambda: self.throughput(self._ours), lambda: self.throughput(self._bare), pairs)
        one.notes += [self._ours.note("ours"), self._bare.note("bare")]
        batch = Comparison("J3", "POST with count=100 against count=1", "ms/POST", 1.1, lower_is_better=True)
        compare(batch, lambda: self.cost(self._hundred), lambda: self.cost(self._one), SLICES * pairs)
        again = Comparison("J3r", "replay of an Idempotency-Key against its first POST", "ms/POST", 1.0, True)
        for _ in range(SLICES * pairs):  # a replay can't come before the first
            again.reference.append(self.first())
            again.ours.append(self.replay())
        return [one, batch, again]

    def close(self) -> None:
        self._empty()
        self._database.close()

    def _empty(self) -> None:
        """Both sides begin with empty tables."""
        self._database.execute("TRUNCATE jobs, idempotency_keys CASCADE")


def run(servers: Servers, pairs: int = 5) -> list[Result]:
    """Measure J1 and J3."""
    with real_api(servers) as ours, bare("bare_app", servers) as reference:
        bench = PostBench(servers, _Side(*ours), _Side(*reference))
        try:
            return bench.results(pairs)
        finally:
            bench.close()
