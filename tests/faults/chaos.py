"""Faults drawn by lot, and applied one after another to a system under load."""

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from tests.faults.stack import PARTS, Stack
from tests.servers.stack import until

#: Longer than a lease lives: the job is taken over, and the sleeper wakes as a fenced attempt.
_FREEZE_SECONDS = 12.0
_DRAIN_SECONDS = 300.0


@dataclass(frozen=True)
class Outage:
    """PostgreSQL refused connections for ``away`` seconds; ``backlog`` jobs were open when it was back."""

    away: float
    backlog: int
    #: Until the last job of the backlog had ended.
    drained: float


class Chaos:
    """Hurts ``stack``. All choices follow from ``seed``."""

    def __init__(self, stack: Stack, seed: int) -> None:
        self._stack = stack
        self._chance = random.Random(seed)
        #: How often in which way, and whom SIGKILL hit by lot.
        self.counts: Counter[str] = Counter()
        self.killed: Counter[str] = Counter(dict.fromkeys(PARTS, 0))

    def kill_any(self) -> None:
        """SIGKILL to one process, now and then to two of different parts at once."""
        for part in self._chance.sample(sorted(PARTS), 2 if self._chance.random() < 0.15 else 1):
            self._stack.kill(part, self._chance)
            self._note("SIGKILL", part)

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
        self._note("FLUSHALL and SIGKILL", "redis")

    def freeze(self, part: str, seconds: float) -> None:
        """The part stands still for a while: whoever talks to it waits, whoever watches it takes it for dead."""
        one = self._stack.one(part, self._chance)
        with self._stack.still([one]):
            self.wait(seconds)
        self.counts[f"SIGSTOP {part} for {seconds:g} s"] += 1

    def freeze_postgres(self, seconds: float) -> None:
        """It hangs: no connection breaks, none is answered."""
        with self._stack.frozen("postgres"):
            self.wait(seconds)
        self.counts["SIGSTOP postgres, long"] += 1

    def stop_postgres(self, seconds: float) -> Outage:
        """It refuses connections; then nothing else goes wrong until every job that was open then has ended."""
        with self._stack.stopped():
            self.wait(seconds)
        self.counts["postgres shut down, long"] += 1
        until(lambda: self._stack.unfinished() is not None, 60, "PostgreSQL")
        back = time.monotonic()
        backlog = set(self._stack.unfinished() or ())
        until(lambda: self._over(backlog), _DRAIN_SECONDS, "an empty backlog")
        return Outage(seconds, len(backlog), time.monotonic() - back)

    def _over(self, backlog: set[str]) -> bool:
        unfinished = self._stack.unfinished()
        return unfinished is not None and backlog.isdisjoint(unfinished)

    def breathe(self) -> None:
        """A pause of random length: the next fault may hit the recovery from this one, or quiet work."""
        self.wait(self._chance.choice((0.1, 0.5, 1.0, 2.0, 4.0)))

    def _note(self, how: str, part: str) -> None:
        self.counts[f"{how} {part}"] += 1
        self.killed[part] += 1

    @staticmethod
    def wait(seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))
