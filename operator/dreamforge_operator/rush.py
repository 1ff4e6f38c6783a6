"""Who goes first when many RenderJobs come at once: those that have no child yet.

A child made is a GPU at work. What is said of it waits until no more RenderJobs come. Where they come for long, it
goes on after a while, but few at a time, so that new ones find both this process and the API server free.
"""

import asyncio
import contextlib
from collections import deque

#: It is quiet so long after the last RenderJob, or so many times what making its child took: a busy API server's
#: RenderJobs come further apart.
_LULL_SECONDS = 0.05
_LULL_CREATES = 4
#: Nobody gives way longer than this; so many of those that did not see the end of the rush go on at once.
_LONGEST_SECONDS = 10.0
_LATER_AT_ONCE = 4


class Places:
    """So many at once, the others in the order in which they came; the number may change."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self) -> None:
        """When there is one."""
        waits = asyncio.get_running_loop().create_future()
        self._waiting.append(waits)
        self._fill()
        await waits

    def leave(self) -> None:
        self._taken -= 1
        self._fill()

    def resize(self, number: int) -> None:
        """From now on; nobody is sent away."""
        self._number = number
        self._fill()

    def _fill(self) -> None:
        while self._waiting and self._taken < self._number:
            waits = self._waiting.popleft()
            if not waits.done():  # else its task was canceled
                self._taken += 1
                waits.set_result(None)


class Turn:
    """A place at work, of one look."""

    def __init__(self, rush: "Rush", place: Places) -> None:
        self._rush = rush
        self._place: Places | None = place

    async def give_way(self, took: float) -> None:
        """Let those go first who have no child yet; making this one's took so many seconds."""
        self.end()
        self._place = await self._rush.later(took)

    def end(self) -> None:
        """Leave the place to others."""
        if self._place is not None:
            self._place.leave()
            self._place = None


class Rush:
    """For one event loop."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._first = Places(at_once)
        self._later = Places(at_once)
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._quiet_at = 0.0

    async def turn(self) -> Turn:
        """When there is a place."""
        await self._first.take()
        return Turn(self, self._first)

    async def later(self, took: float) -> Places:
        """A place for those who give way, when it is quiet or they have waited long enough."""
        self.stir(min(_LULL_CREATES * took, _LONGEST_SECONDS))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LONGEST_SECONDS):
                await self._quiet.wait()
        await self._later.take()
        return self._later

    def stir(self, seconds: float = 0.0) -> None:
        """A RenderJob has come or has its child: it is not quiet for so many seconds at least."""
        loop = asyncio.get_running_loop()
        self._quiet_at = max(self._quiet_at, loop.time() + max(seconds, _LULL_SECONDS))
        if self._quiet.is_set():
            self._quiet.clear()
            self._later.resize(_LATER_AT_ONCE)
            loop.call_at(self._quiet_at, self._look)

    def _look(self) -> None:
        """One timer for all stirs: it goes on where later ones came."""
        loop = asyncio.get_running_loop()
        if self._quiet_at > loop.time():
            loop.call_at(self._quiet_at, self._look)
        else:
            self._quiet.set()
            self._later.resize(self._at_once)
