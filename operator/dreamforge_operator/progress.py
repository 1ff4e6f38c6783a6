"""How far rendering jobs are, by what ingest publishes: for the status, at most every ten seconds for each job.

Fire and forget on both sides: a message that is lost is replaced by the next one, and a job shorter than that never
has one written.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import ValidationError
from redis import asyncio as aioredis
from redis.exceptions import RedisError

from dreamforge import telemetry
from dreamforge.announcements import Progress
from dreamforge.transport import names

log = telemetry.logger(__name__)

WRITE_SECONDS = 10.0
_REST_SECONDS = 5.0


@dataclass
class _Watched:
    """A job that renders."""

    name: str
    due: float
    latest: Progress | None = None


class ProgressBoard:
    """The newest progress of each job that renders."""

    def __init__(self, look: Callable[[str, float], None], clock: Callable[[], float] = time.monotonic) -> None:
        """``look(name, delay)`` asks for a look at a RenderJob."""
        self._look = look
        self._clock = clock
        self._jobs: dict[str, _Watched] = {}

    def watch(self, job_id: str, name: str) -> None:
        """It renders; what is published from now on counts."""
        if job_id not in self._jobs:
            self._jobs[job_id] = _Watched(name, self._clock() + WRITE_SECONDS)

    def forget(self, job_id: str) -> None:
        """It no longer renders."""
        self._jobs.pop(job_id, None)

    def keep(self, job_ids: set[str]) -> None:
        """Forget all others."""
        for job_id in self._jobs.keys() - job_ids:
            del self._jobs[job_id]

    def hear(self, progress: Progress) -> None:
        """News from ingest."""
        watched = self._jobs.get(str(progress.job_id))
        if watched is not None:
            watched.latest = progress
            self._look(watched.name, max(0.0, watched.due - self._clock()))

    def take(self, job_id: str) -> Progress | None:
        """The newest, if it is time to write it down."""
        watched = self._jobs.get(job_id)
        if watched is None or watched.latest is None or watched.due > self._clock():
            return None
        latest, watched.latest = watched.latest, None
        watched.due = self._clock() + WRITE_SECONDS
        return latest

    async def listen(self, url: str) -> None:
        """Until canceled; a Redis that is away is tried again."""
        while True:
            try:
                await self._listen(url)
            except (RedisError, OSError, TimeoutError) as error:
                log.warning("no item progress for now", cause=type(error).__name__)
            await asyncio.sleep(_REST_SECONDS)

    async def _listen(self, url: str) -> None:
        client = aioredis.Redis.from_url(url, socket_connect_timeout=5, health_check_interval=15)
        async with client, client.pubsub(ignore_subscribe_messages=True) as channel:
            await channel.subscribe(names.PROGRESS_CHANNEL)
            while True:
                message = await channel.get_message(timeout=10)
                if message is None:
                    continue
                try:
                    self.hear(Progress.model_validate_json(message["data"]))
                except ValidationError:
                    log.warning("a progress message is none")
