"""S3: memory of the API for one more event stream on which nothing happens, against a bare StreamingResponse."""

import resource
import time
from contextlib import ExitStack

from benchmarks.api import bare, real_api
from benchmarks.harness import Comparison, Result, compare
from benchmarks.processes import Program
from benchmarks.sse import JobFeed
from benchmarks.stack import Servers
from benchmarks.subscribers import subscribed

STREAMS = 5000
#: Open before the first look, so that what the first streams load once is not counted.
_FIRST = 100
_SETTLE_SECONDS = 1.0
_FILES = 16_000


def _ours(servers: Servers) -> float:
    feed = JobFeed(servers)
    settings = {"DF_SSE_MAX_STREAMS": str(STREAMS + _FIRST), "DF_SSE_HEARTBEAT_SECONDS": "600"}
    try:
        with real_api(servers, **settings) as (api, port):
            return _kib_a_stream(servers, api, port, feed.path)
    finally:
        feed.close()


def _bare(servers: Servers) -> float:
    with bare("bare_broadcast", servers) as (app, port):
        return _kib_a_stream(servers, app, port, "/stream")


def _kib_a_stream(servers: Servers, program: Program, port: int, path: str) -> float:
    with ExitStack() as readers:
        readers.enter_context(subscribed(port, path, _FIRST, 10, servers.folder))
        time.sleep(_SETTLE_SECONDS)
        before = program.resident_bytes()
        readers.enter_context(subscribed(port, path, STREAMS, 10, servers.folder))
        time.sleep(_SETTLE_SECONDS)
        return (program.resident_bytes() - before) / STREAMS / 1024


def run(servers: Servers, pairs: int = 5) -> list[Result]:
    """Measure S3; a fresh process each time, because one does not give back what it once had."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, _FILES), hard), hard))  # children inherit it
    result = Comparison("S3", f"resident memory of each of {STREAMS} idle streams", "KiB", 1.3, lower_is_better=True)
    return [compare(result, lambda: _ours(servers), lambda: _bare(servers), min(pairs, 3))]
