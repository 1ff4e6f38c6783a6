"""The long form: ``python -m tests.faults.soak --minutes 20`` prints a table of faults and one of invariants.

Ends with 1 when an invariant does not hold; the system's folder then stays for a look.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from dreamforge.crashpoints import CrashPoint
from tests.faults import oracle
from tests.faults.chaos import Chaos
from tests.faults.load import Load
from tests.faults.stack import Stack

_POSTGRES_AWAY_SECONDS = 60.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20, help="how long faults rain")
    parser.add_argument("--seed", type=int, help="the seed of an earlier run")
    parser.add_argument("--clients", type=int, default=4, help="clients that make jobs all the time")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().getrandbits(32)
    print(f"seed {seed}, {arguments.minutes:g} minutes", flush=True)
    home = Path(tempfile.mkdtemp(prefix="dreamforge-soak-"))
    stack = Stack(home / "data")
    try:
        stack.start()
        good = _soak(stack, seed, arguments.minutes * 60, arguments.clients)
    finally:
        stack.end()
    if good:
        shutil.rmtree(home)
    else:
        print(f"the system's folder is kept: {home}")
    return 0 if good else 1


def _soak(stack: Stack, seed: int, seconds: float, clients: int) -> bool:
    chaos = Chaos(stack, seed)
    points = list(CrashPoint)
    random.Random(seed).shuffle(points)
    load = Load(stack.up.url, seed, clients).start()
    begun = time.monotonic()
    _rain(stack, chaos, points, begun + seconds, begun + seconds / 2)
    rained = time.monotonic()
    account = load.finish(600)
    drained = time.monotonic()
    verdict = oracle.judge(stack, account, settle_seconds=120)
    armed = [point for point in CrashPoint if chaos.counts[f"crash point {point}"]]
    verdict.broken["crash point that killed nobody"] = [point for point in armed if stack.marks.victim(point) is None]
    stack.remove_orphans()
    verdict.broken["I3 stray image after the sweep"] = ["stray"] * oracle.judge(stack, account, 0).strays
    _table("faults", sorted(chaos.counts.items()), total=True)
    asked = {"jobs": verdict.jobs, "attempts": verdict.attempts, "artifacts": verdict.artifacts}
    asked |= {"events": verdict.events, "requests asked again": account.retries}
    asked |= {"stray images before the sweep": verdict.strays}
    _table("looked at", asked.items())
    _table("invariants", [(name, len(found)) for name, found in verdict.broken.items()], total=True)
    print(f"rained {rained - begun:.0f} s, drained {drained - rained:.1f} s, slowest answer {account.slowest:.1f} s")
    for name, found in verdict.found.items():
        print(f"{name}:", *found[:20], sep="\n  ")
    return not verdict.found


def _rain(stack: Stack, chaos: Chaos, points: list[CrashPoint], until: float, away_at: float) -> None:
    """Faults by lot, the named points in between, and one long absence of PostgreSQL in the middle."""
    while time.monotonic() < until:
        if away_at < time.monotonic():
            away_at = float("inf")
            with stack.frozen("postgres"):
                chaos.wait(min(_POSTGRES_AWAY_SECONDS, (until - time.monotonic()) / 2))
            chaos.counts["SIGSTOP postgres, long"] += 1
        if points and chaos.counts.total() % 4 == 3:
            point = points.pop()
            stack.marks.arm(point)
            chaos.counts[f"crash point {point}"] += 1
        else:
            chaos.anything()
        chaos.breathe()


def _table(title: str, rows: Iterable[tuple[str, int]], *, total: bool = False) -> None:
    rows = list(rows)
    print(f"\n{title}")
    for name, count in rows:
        print(f"  {name:<42}{count:>8}")
    if total:
        print(f"  {'total':<42}{sum(count for _, count in rows):>8}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
