"""J2: the slowest hundredth of POSTs at half of what our API can take, against the bare app at the same rate."""

import json
import statistics

import psycopg

from benchmarks import http_load, open_loop
from benchmarks.api import bare, real_api
from benchmarks.harness import Comparison, Result, compare
from benchmarks.stack import Servers
from tests.servers.postgres import plain

SHARE = 0.5
#: At a few hundred requests a second this is thousands of them, so the slowest hundredth is not a handful.
SECONDS = 6.0
WARM_SECONDS = 0.5
_SATURATION_RUNS = 3
_REQUEST = http_load.post(
    "/v1/jobs", json.dumps({"type": "generate", "prompt": "an old-growth forest at dawn", "steps": 24}).encode()
)


class _Bench:
    def __init__(self, database_url: str) -> None:
        self._database = psycopg.connect(plain(database_url), autocommit=True)
        self._seed = 0
        self.all: dict[int, list[float]] = {}

    def saturation(self, port: int) -> float:
        """Requests a second in a closed loop."""
        rates = []
        for _ in range(_SATURATION_RUNS):
            self._empty()
            rates.append(http_load.for_seconds(port, lambda _: _REQUEST, 2.0, connections=32).rate)
        return statistics.median(rates)

    def p99(self, port: int, rate: float) -> float:
        """Milliseconds. Both sides of a pair get their requests at the same times."""
        self._empty()
        open_loop.latencies(port, _REQUEST, rate, WARM_SECONDS, 0)
        seen = self.all.setdefault(port, [])
        found = open_loop.latencies(port, _REQUEST, rate, SECONDS, self._seed // 2)
        self._seed += 1
        seen += found
        return _percentile(found, 0.99)

    def note(self, who: str, port: int) -> str:
        seen = self.all[port]
        figures = ", ".join(f"p{100 * share:g} {_percentile(seen, share):.2f}" for share in (0.5, 0.9, 0.99, 0.999))
        return f"{who}, {len(seen)} requests together: {figures} ms"

    def close(self) -> None:
        self._empty()
        self._database.close()

    def _empty(self) -> None:
        self._database.execute("TRUNCATE jobs, idempotency_keys CASCADE")


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))]


def run(servers: Servers, pairs: int = 5) -> list[Result]:
    """Measure J2."""
    bench = _Bench(servers.database_url)
    with real_api(servers) as (_, ours), bare("bare_app", servers) as (_, reference):
        rate = SHARE * bench.saturation(ours)
        result = Comparison("J2", "p99 of POST at half of own saturation", "ms", 1.5, lower_is_better=True)
        compare(result, lambda: bench.p99(ours, rate), lambda: bench.p99(reference, rate), pairs)
        result.notes += [f"{rate:.0f} requests a second", bench.note("ours", ours), bench.note("bare", reference)]
        bench.close()
    return [result]
