"""The account of one download that its threads share: what is wanted, what is there, what is hashed.

Range workers take stretches from the front of the file and may run ahead of the hash by a window at most; the hasher
takes the bytes in order, out of memory, so that the file is not read again. Only what an earlier run left is read.
"""

import threading
from collections import deque
from typing import NamedTuple

from dreamforge_cli.models.fetch.ranges import Ranges, Stretch


class Stopped(Exception):
    """The download ends for a reason that is noted in the ledger."""


class Due(NamedTuple):
    """What the hash wants next: these bytes, or so many that an earlier run left in the file."""

    at: int
    data: list[bytes]
    in_file: int = 0


class Ledger:
    """All methods may be called from any thread."""

    def __init__(self, size: int | None, done: Ranges, hashed: int, window: int) -> None:
        lock = threading.Lock()
        self._arrived = threading.Condition(lock)
        self._room = threading.Condition(lock)
        self._ended = threading.Condition(lock)
        self._done = done
        self._there = done.total
        self._todo: deque[Stretch] = deque()
        self._in_flight = 0
        self._waiting: dict[int, bytes] = {}
        self._window = window
        self._hashed = hashed
        self._failure: BaseException | None = None
        self._over = False
        self.size = size
        self.received = 0

    @property
    def there(self) -> int:
        """Bytes that are there."""
        return self._there

    @property
    def failure(self) -> BaseException | None:
        """Why the download ends early, if it does."""
        return self._failure

    def done(self) -> Ranges:
        """A copy of what is there."""
        with self._arrived:
            return Ranges(self._done)

    # Workers

    def plan(self, stretches: list[Stretch], in_flight: int = 0) -> None:
        """What is left to fetch, in order, beside what is on its way already."""
        with self._room:
            self._todo = deque(stretches)
            self._in_flight = in_flight

    def take(self) -> Stretch | None:
        """The next stretch, as soon as the window reaches it; ``None`` when nothing is left or on its way."""
        with self._room:
            while True:
                self._check()
                if self._next_fits():
                    self._in_flight += 1
                    return self._todo.popleft()
                if not self._todo and not self._in_flight:
                    return None
                self._room.wait()

    def give_back(self, rest: Stretch | None) -> None:
        """A stretch that was taken has ended, up to the rest of it, if any."""
        with self._room:
            self._in_flight -= 1
            if rest is not None:
                self._todo.appendleft(rest)
            self._room.notify_all()

    def record(self, at: int, data: bytes) -> None:
        """Bytes are in the file; the hash will want them. Waits while they are too far ahead of it."""
        with self._room:
            self._check()
            while at >= self._hashed + self._window:
                self._room.wait()
                self._check()
            self._done.add(at, at + len(data))
            self._waiting[at] = data
            self._there += len(data)
            self.received += len(data)
            if at == self._hashed:
                self._arrived.notify()

    def ends_at(self, size: int) -> None:
        """The stream has ended, so the size is known."""
        with self._arrived:
            self.size = size
            self._arrived.notify()

    # Hasher

    def due(self) -> Due | None:
        """What to hash next; waits for it; ``None`` when the hash has everything.

        What is in memory is given out even when the download has ended early: the next run need not read it again.
        """
        with self._arrived:
            while True:
                at = end = self._hashed
                data: list[bytes] = []
                while (chunk := self._waiting.pop(end, None)) is not None:
                    data.append(chunk)
                    end += len(chunk)
                if data:
                    return Due(at, data)
                self._check()
                if (reach := self._done.reach(at)) > at:
                    return Due(at, [], min([reach, *self._waiting]) - at)
                if self.size is not None and at >= self.size:
                    return None
                self._arrived.wait()

    def hashed(self, to: int) -> None:
        """The hash has everything before ``to``."""
        with self._room:
            self._hashed = to
            if self._next_fits() or not self._todo:
                self._room.notify_all()

    # Everyone

    def stop(self, failure: BaseException) -> None:
        """End the download; the first failure is the one that counts."""
        with self._room:
            self._failure = self._failure or failure
            for condition in (self._arrived, self._room, self._ended):
                condition.notify_all()

    def finish(self) -> None:
        """Everything is there and hashed."""
        with self._ended:
            self._over = True
            self._ended.notify_all()

    def ended(self, within: float) -> bool:
        """Wait so many seconds, or until the download has ended, well or not; whether it has."""
        with self._ended:
            return self._ended.wait_for(lambda: self._over or self._failure is not None, within)

    def pause(self, seconds: float) -> None:
        """Sleep, for a worker: wakes and leaves when the download ends."""
        if self.ended(seconds):
            raise Stopped

    def check(self) -> None:
        """Leave when the download has ended early."""
        with self._room:
            self._check()

    def _next_fits(self) -> bool:
        return bool(self._todo) and self._todo[0][1] <= self._hashed + self._window

    def _check(self) -> None:
        if self._failure is not None:
            raise Stopped
