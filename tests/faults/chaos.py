"""Faults drawn by lot, and applied one after another to a system under load."""

import random
import time
from collections import Counter
from collections.abc import Callable

from tests.faults.stack import Stack

_KILLED = ("api", "worker", "runner", "child", "postgres", "redis")
#: Longer than a lease lives: the job is taken over, and the sleeper wakes as a fenced attempt.
_FREEZE_SECONDS = 12.0


class Chaos:
    """Hurts ``stack``; ``counts`` tells how often in which way. All choices follow from ``seed``."""

    def __init__(self, stack: Stack, seed: int) -> None:
        self._stack = stack
        self._chance = random.Random(seed)
        self.counts: Counter[str] = Counter()

    def kill_any(self) -> None:
        """SIGKILL to one process, now and then to two of different parts at once."""
        for part in self._chance.sample(_KILLED, 2 if self._chance.random() < 0.15 else 1):
            self._stack.kill(part, self._chance)
            self.counts[f"SIGKILL {part}"] += 1

    def anything(self) -> None:
        """Mostly a kill; sometimes Redis emptied, sometimes a part that stands still and wakes again."""
        rare: dict[float, Callable[[], object]] = {
            0.03: self.wipe_redis,
            0.04: lambda: self.freeze("redis", 2.0),
            0.05: lambda: self.freeze("worker", 5.0),
            0.06: lambda: self.freeze("runner", _FREEZE_SECONDS),
        }
        drawn = self._chance.random()
        next((fault for bound, fault in rare.items() if drawn < bound), self.kill_any)()

    def wipe_redis(self) -> None:
        self._stack.wipe_redis()
        self.counts["FLUSHALL and SIGKILL redis"] += 1

    def freeze(self, part: str, seconds: float) -> None:
        """The part stands still for a while: whoever talks to it waits, whoever watches it takes it for dead."""
        one = self._stack.one(part, self._chance)
        with self._stack.still([one]):
            self.wait(seconds)
        self.counts[f"SIGSTOP {part} for {seconds:g} s"] += 1

    def breathe(self) -> None:
        """A pause of random length: the next fault may hit the recovery from this one, or quiet work."""
        self.wait(self._chance.choice((0.1, 0.5, 1.0, 2.0, 4.0)))

    @staticmethod
    def wait(seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))
