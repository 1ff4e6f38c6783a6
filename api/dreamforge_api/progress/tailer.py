"""One job's events, read once for all its readers."""

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from dreamforge import telemetry
from dreamforge.db import events, jobs
from dreamforge.errors import DreamForgeError
from dreamforge.jobs import JobState
from dreamforge_api.database import Database
from dreamforge_api.problem import not_found
from dreamforge_api.progress import frames
from dreamforge_api.progress.frames import Frame
from dreamforge_api.progress.window import Window

if TYPE_CHECKING:
    from dreamforge_api.progress.broadcaster import Subscription

PAGE = 500
_TRY_AGAIN_SECONDS = 0.5
_log = telemetry.logger(__name__)


class Tailer:
    """Follows a job until it ends. Its subscribers stand somewhere in :attr:`window` and are woken when it grows."""

    def __init__(self, job_id: UUID, database: Database, window: Window) -> None:
        self.job_id = job_id
        self.window = window
        self.subscriptions: set[Subscription] = set()
        self.idle_since = time.monotonic()
        self.read_at = 0.0
        self._database = database
        self._reading = asyncio.Lock()
        self._dirty = asyncio.Event()
        self._opened = asyncio.ensure_future(self._open())
        self._following: asyncio.Task[None] | None = None

    async def opened(self) -> None:
        """Wait until the newest events are here; raises a 404 problem for an unknown job."""
        await asyncio.shield(self._opened)

    @property
    def failed(self) -> bool:
        """Whether opening ended without success: a new tailer has to try again."""
        return self._opened.done() and (self._opened.cancelled() or self._opened.exception() is not None)

    def look(self, seq: int | None = None) -> None:
        """There may be events (up to ``seq``) that are not here yet."""
        if seq is None or seq > self.window.last_seq:
            self._dirty.set()

    async def refresh(self) -> None:
        """Read what is new and wake the subscribers."""
        async with self._reading:
            while not self.window.ended:
                page = await self.page_after(self.window.last_seq)
                self.window.extend(page)
                if page:
                    for subscription in self.subscriptions:
                        subscription.wake()
                if len(page) < PAGE:
                    break
            self.read_at = time.monotonic()

    async def page_after(self, seq: int) -> list[Frame]:
        """Events straight from the database, for readers that are further back than the window."""
        rows = await self._database.rows(events.after(self.job_id, seq, PAGE))
        return [frames.encode(row) for row in rows]

    def close(self) -> None:
        self._opened.cancel()
        if self._following is not None:
            self._following.cancel()

    async def _open(self) -> None:
        size = self.window.size

        async def work(connection: AsyncConnection) -> tuple[RowMapping | None, Sequence[RowMapping]]:
            # The job first: when it is terminal here, its last event is among those read next.
            row = (await connection.execute(jobs.by_id(self.job_id))).mappings().first()
            newest = await connection.execute(events.tail(self.job_id, size)) if row is not None else None
            return row, newest.mappings().all() if newest is not None else []

        row, newest = await self._database.run(work)
        if row is None:
            raise not_found("There is no such job")
        self.window.start([frames.encode(event) for event in reversed(newest)], complete=len(newest) < size)
        self.window.ended = self.window.ended or JobState(row["status"]).terminal
        self.read_at = time.monotonic()
        if not self.window.ended:
            self._following = asyncio.get_running_loop().create_task(self._follow())

    async def _follow(self) -> None:
        while not self.window.ended:
            await self._dirty.wait()
            self._dirty.clear()
            try:
                await self.refresh()
            except DreamForgeError as error:
                _log.warning("events can't be read now", job_id=str(self.job_id), error=str(error))
                await asyncio.sleep(_TRY_AGAIN_SECONDS)
                self._dirty.set()
