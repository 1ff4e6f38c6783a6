"""Who goes first when many RenderJobs come at once: those that have no child yet.

A child made is a GPU at work. What is said of it waits until no more RenderJobs come. Where they come for long, it
goes on after a while, but few at a time, so that new ones find both this process and the API server free. One that
is changed meanwhile waits no longer: somebody may want it to stop.
"""

import asyncio
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
        self._way: asyncio.Future[Places] | None = None

    async def give_way(self, took: float) -> None:
        """Let those go first who have no child yet; making this one's took so many seconds."""
        self.end()
        self._way = asyncio.get_running_loop().create_future()
        place = await self._rush.later(took, self._way)
        await place.take()
        self._place = place

    def hurry(self) -> None:
        """Give way no longer."""
        if self._way is not None and not self._way.done():
            self._way.set_result(self._rush.first)

    def end(self) -> None:
        """Leave the place to others."""
        if self._place is not None:
            self._place.leave()
            self._place = None


class Rush:
    """For one event loop."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self.first = Places(at_once)
        self._later = Places(at_once)
        self._giving_way: set[asyncio.Future[Places]] = set()
        self._rushing = False
        self._quiet_at = 0.0

    async def turn(self) -> Turn:
        """When there is a place."""
        await self.first.take()
        return Turn(self, self.first)

    async def later(self, took: float, way: asyncio.Future[Places]) -> Places:
        """Where to go on: what ``way`` is told, when it is quiet or after long enough."""
        self.stir(min(_LULL_CREATES * took, _LONGEST_SECONDS))
        self._giving_way.add(way)
        try:
            async with asyncio.timeout(_LONGEST_SECONDS):
                return await way
        except TimeoutError:
            return self._later
        finally:
            self._giving_way.discard(way)

    def stir(self, seconds: float = 0.0) -> None:
        """A RenderJob has come or has its child: it is not quiet for so many seconds at least."""
        loop = asyncio.get_running_loop()
        self._quiet_at = max(self._quiet_at, loop.time() + max(seconds, _LULL_SECONDS))
        if not self._rushing:
            self._rushing = True
            self._later.resize(_LATER_AT_ONCE)
            loop.call_at(self._quiet_at, self._look)

    def _look(self) -> None:
        """One timer for all stirs: it goes on where later ones came."""
        loop = asyncio.get_running_loop()
        if self._quiet_at > loop.time():
            loop.call_at(self._quiet_at, self._look)
        else:
            self._rushing = False
            self._later.resize(self._at_once)
            for way in self._giving_way:
                if not way.done():
                    way.set_result(self._later)
