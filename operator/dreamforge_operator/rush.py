"""Who goes first when many RenderJobs come at once: those that have no child yet.

A child made is a GPU at work. What is said of it waits until no more RenderJobs come, and then goes few at a time,
so that those that come later find both this process and the API server free.
"""

import asyncio
import contextlib

#: It is quiet so long after the last RenderJob, or so many times what making its child took: a busy API server's
#: RenderJobs come further apart.
_LULL_SECONDS = 0.05
_LULL_CREATES = 4
#: Nobody gives way longer than this.
_LONGEST_SECONDS = 10.0
_LATER_AT_ONCE = 4


class Turn:
    """A place at work, of one look."""

    def __init__(self, rush: "Rush", place: asyncio.Semaphore) -> None:
        self._rush = rush
        self._place: asyncio.Semaphore | None = place

    async def give_way(self, took: float) -> None:
        """Let those go first who have no child yet; making this one's took so many seconds."""
        self.end()
        self._place = await self._rush.later(took)

    def end(self) -> None:
        """Leave the place to others."""
        if self._place is not None:
            self._place.release()
            self._place = None


class Rush:
    """For one event loop."""

    def __init__(self, at_once: int) -> None:
        self._first = asyncio.Semaphore(at_once)
        self._later = asyncio.Semaphore(_LATER_AT_ONCE)
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._quiet_at = 0.0

    async def turn(self) -> Turn:
        """When there is a place."""
        await self._first.acquire()
        return Turn(self, self._first)

    async def later(self, took: float) -> asyncio.Semaphore:
        """A place for those who give way, when it is quiet or they have waited long enough."""
        self.stir(_LULL_CREATES * took)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LONGEST_SECONDS):
                await self._quiet.wait()
        await self._later.acquire()
        return self._later

    def stir(self, seconds: float = 0.0) -> None:
        """A RenderJob has come or has its child: it is not quiet for so many seconds at least."""
        loop = asyncio.get_running_loop()
        self._quiet_at = max(self._quiet_at, loop.time() + max(seconds, _LULL_SECONDS))
        if self._quiet.is_set():
            self._quiet.clear()
            loop.call_at(self._quiet_at, self._look)

    def _look(self) -> None:
        """One timer for all stirs: it goes on where later ones came."""
        loop = asyncio.get_running_loop()
        if self._quiet_at > loop.time():
            loop.call_at(self._quiet_at, self._look)
        else:
            self._quiet.set()
