"""What Postgres and Redis know about the queue, as metrics; asked at most every two seconds.

A part that does not answer leaves its metrics out and says ``dreamforge_dependency_up 0``: a scrape never fails.
"""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from redis.exceptions import RedisError
from rq.registry import FailedJobRegistry

from dreamforge.db import deadletters, jobs
from dreamforge.errors import DreamForgeError
from dreamforge.jobs import JobState
from dreamforge.transport import names
from dreamforge_api.bus import Bus
from dreamforge_api.database import Database

_FRESH_SECONDS = 2.0
_WITHIN_SECONDS = 1.5


@dataclass
class _Seen:
    jobs: dict[str, int] = field(default_factory=dict)
    queue_delay: float = 0.0
    dead: dict[str, int] = field(default_factory=dict)
    up: dict[str, int] = field(default_factory=dict)


class Snapshot(Collector):
    """Call :meth:`refresh`, then let Prometheus collect."""

    def __init__(self, database: Database, bus: Bus) -> None:
        self._database = database
        self._bus = bus
        self._seen = _Seen()
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()

    async def refresh(self) -> None:
        async with self._reading:
            if time.monotonic() - self._read_at < _FRESH_SECONDS:
                return
            seen = _Seen()
            await asyncio.gather(self._ask_database(seen), self._ask_redis(seen))
            self._seen = seen
            self._read_at = time.monotonic()

    def collect(self) -> Iterator[Metric]:
        seen = self._seen
        up = GaugeMetricFamily(
            "dreamforge_dependency_up", "1 when the part answered the last time it was asked.", labels=["name"]
        )
        for name, value in seen.up.items():
            up.add_metric([name], value)
        yield up
        if seen.up.get("database"):
            yield from self._of_database(seen)
        dead = GaugeMetricFamily(
            "dreamforge_dlq_size", "What failed for good and waits for a person, by queue.", labels=["queue"]
        )
        for queue, size in sorted(seen.dead.items()):
            dead.add_metric([queue], size)
        yield dead

    def _of_database(self, seen: _Seen) -> Iterator[Metric]:
        by_status = GaugeMetricFamily("dreamforge_jobs", "Jobs by status.", labels=["status"])
        for status in JobState:
            by_status.add_metric([status.value], seen.jobs.get(status.value, 0))
        yield by_status
        queued = seen.jobs.get(JobState.QUEUED.value, 0)
        yield GaugeMetricFamily("dreamforge_queue_depth", "Jobs that wait for a runner.", value=queued)
        yield GaugeMetricFamily(
            "dreamforge_queue_delay_seconds", "Age of the oldest queued job.", value=seen.queue_delay
        )

    async def _ask_database(self, seen: _Seen) -> None:
        seen.up["database"] = 0
        try:
            async with asyncio.timeout(_WITHIN_SECONDS):
                rows = await self._database.rows(jobs.COUNT_BY_STATUS)
                seen.queue_delay = float(await self._database.scalar(jobs.QUEUE_DELAY))
                seen.dead["jobs"] = int(await self._database.scalar(deadletters.COUNT))
        except (DreamForgeError, TimeoutError):
            return
        seen.jobs = {row["status"]: row["jobs"] for row in rows}
        seen.up["database"] = 1

    async def _ask_redis(self, seen: _Seen) -> None:
        seen.up["redis"] = 0
        try:
            async with asyncio.timeout(_WITHIN_SECONDS):
                for queue in (names.EVENTS_QUEUE, names.RENDER_QUEUE):
                    key = FailedJobRegistry.key_template.format(queue)
                    seen.dead[queue] = await self._bus.sorted_set_size(key)
        except (RedisError, OSError, TimeoutError):
            return
        seen.up["redis"] = 1
