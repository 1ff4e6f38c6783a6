"""A queue of keys: each waits at most once, is worked on by one worker at a time, and returns after a failure.

What happened to an object is not in the queue, only that somebody should look. So a thousand events of one object
cost one look, and an event during the look costs one more.
"""

import asyncio
import contextlib
import heapq
import itertools
import random
import time
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")

FIRST_RETRY_SECONDS = 0.2
LAST_RETRY_SECONDS = 60.0


class WorkQueue(Generic[K]):
    """For one event loop; not thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._tie = itertools.count()
        self._busy: set[K] = set()
        self._again: dict[K, float] = {}
        self._failures: dict[K, int] = {}
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        """Keys that wait or are worked on."""
        return len(self._due) + len(self._busy)

    @property
    def ready(self) -> int:
        """Keys whose time has come."""
        now = self._clock()
        return sum(due <= now for due in self._due.values())

    def add(self, key: K, delay: float = 0.0) -> None:
        """Look at ``key`` in ``delay`` seconds at the latest."""
        due = self._clock() + delay
        if key in self._busy:
            self._again[key] = min(due, self._again.get(key, due))
            return
        known = self._due.get(key)
        if known is None or due < known:
            self._due[key] = due
            heapq.heappush(self._heap, (due, next(self._tie), key))
            self._wake.set()

    async def get(self) -> K:
        """The next key whose time has come; :meth:`done` or :meth:`failed` must follow."""
        while True:
            due = self._drop_stale()
            now = self._clock()
            if due is not None and due <= now:
                _, _, key = heapq.heappop(self._heap)
                del self._due[key]
                self._busy.add(key)
                return key
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if due is None else due - now):
                    await self._wake.wait()

    def done(self, key: K, again_in: float | None = None) -> None:
        """The look went well; ``again_in`` asks for another one without an event."""
        self._failures.pop(key, None)
        self._release(key, again_in)

    def failed(self, key: K) -> float:
        """The look failed; the key comes back after the seconds returned, later each time."""
        count = self._failures[key] = self._failures.get(key, 0) + 1
        delay = backoff(count)
        self._again.pop(key, None)  # an event does not shorten the wait: the cause is not the object
        self._release(key, delay)
        return delay

    def _release(self, key: K, delay: float | None) -> None:
        self._busy.discard(key)
        asked = self._again.pop(key, None)
        waits = [wait for wait in (delay, None if asked is None else asked - self._clock()) if wait is not None]
        if waits:
            self.add(key, max(0.0, min(waits)))

    def _drop_stale(self) -> float | None:
        """When the first key is due, after removing entries that an earlier date replaced."""
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None


def backoff(failures: int) -> float:
    """Seconds before the next try: doubling, bounded, and spread so that a thousand keys do not return as one."""
    longest = min(FIRST_RETRY_SECONDS * 2.0 ** min(failures - 1, 16), LAST_RETRY_SECONDS)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spread, not a secret
