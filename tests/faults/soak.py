"""The long form: ``python -m tests.faults.soak --minutes 20`` ends with tables of kills, faults and broken promises.

Faults rain until the time is over and as many kills are reached as were asked for. Ends with 1 when a promise was
broken; the system's folder then stays for a look.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from dreamforge.crashpoints import CrashPoint
from tests.faults import oracle
from tests.faults.chaos import Chaos, Outage
from tests.faults.chores import CHORES
from tests.faults.load import Account, Load
from tests.faults.marks import POINTS
from tests.faults.report import DRAIN_SECONDS, Report
from tests.faults.stack import Stack

_POSTGRES_AWAY_SECONDS = 60.0
_KILLS_PER_MINUTE = 15.0
_PATIENCE_SECONDS = 600.0
#: Jobs that wait when PostgreSQL goes away, beside those of the clients.
_PILE = 20


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20, help="how long faults rain")
    parser.add_argument("--kills", type=int, help=f"at least so many; {_KILLS_PER_MINUTE:g} a minute unless given")
    parser.add_argument("--seed", type=int, help="the seed of an earlier run")
    parser.add_argument("--clients", type=int, default=4, help="clients that make jobs all the time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the tables there as well")
    arguments = parser.parse_args()
    arguments.seed = random.SystemRandom().getrandbits(32) if arguments.seed is None else arguments.seed
    print(f"seed {arguments.seed}, {arguments.minutes:g} minutes", flush=True)
    home = Path(tempfile.mkdtemp(prefix="dreamforge-soak-"))
    stack = Stack(home / "data")
    try:
        stack.start()
        report = _soak(stack, arguments)
    finally:
        stack.end()
    report.show()
    if arguments.json:
        report.keep(arguments.json)
    if report.good:
        shutil.rmtree(home)
    else:
        print(f"the system's folder is kept: {home}")
    return 0 if report.good else 1


def _soak(stack: Stack, arguments: argparse.Namespace) -> Report:
    chaos = Chaos(stack, arguments.seed)
    load = Load(stack.up.url, arguments.seed, arguments.clients, patience=_PATIENCE_SECONDS).start()
    begun = time.monotonic()
    kills = arguments.kills or int(_KILLS_PER_MINUTE * arguments.minutes)
    outage = _rain(stack, chaos, load, arguments.minutes * 60, kills)
    rained = time.monotonic()
    account = load.finish()
    drained = time.monotonic()
    verdict = oracle.judge(stack, account, settle_seconds=120)
    armed = [point for point in POINTS if chaos.counts[f"crash point {point}"]]
    return Report(
        seed=arguments.seed,
        minutes=arguments.minutes,
        store="filesystem",
        killed=dict(chaos.killed),  # `asdict` makes nonsense of counters
        faults=dict(chaos.counts),
        points=[point for point in armed if stack.marks.victim(point) is not None],
        looked_at=_looked_at(verdict, account),
        seconds={
            "rain": rained - begun,
            "until all jobs had ended": drained - rained,
            "slowest answer": account.slowest,
            "longest wait for a job": account.longest,
        },
        outage=outage,
        broken={
            **verdict.broken,
            "crash point that killed nobody": [point for point in armed if stack.marks.victim(point) is None],
            "backlog drained too slowly": [f"{outage.drained:.0f} s"] if outage.drained > DRAIN_SECONDS else [],
            "I3 stray image after the sweep": ["stray"] * _strays(stack, account),
        },
    )


def _looked_at(verdict: oracle.Verdict, account: Account) -> dict[str, int]:
    return {
        "jobs": verdict.jobs,
        "attempts": verdict.attempts,
        "artifacts": verdict.artifacts,
        "events": verdict.events,
        "requests asked again": account.retries,
        "error bodies": len(account.refusals),
        "stray images before the sweep": verdict.strays,
    }


def _strays(stack: Stack, account: Account) -> int:
    """Images without a row that are still there when retention has looked for orphans."""
    stack.remove_orphans()
    return oracle.judge(stack, account, 0).strays


def _rain(stack: Stack, chaos: Chaos, load: Load, seconds: float, kills: int) -> Outage:
    """Faults by lot, the named points in between; PostgreSQL stands still once for long, and is away once."""
    points = [point for point in POINTS if point not in CHORES]  # a test each
    random.Random(load.seed).shuffle(points)
    begun = time.monotonic()
    away = min(_POSTGRES_AWAY_SECONDS, seconds / 3)
    _shower(stack, chaos, points, begun + seconds / 3, 0)
    chaos.freeze_postgres(min(_POSTGRES_AWAY_SECONDS, seconds / 8))
    _shower(stack, chaos, points, begun + seconds * 2 / 3 - away, 0)
    load.pile(_PILE)
    outage = chaos.stop_postgres(away)
    _shower(stack, chaos, points, begun + seconds, kills)
    return outage


def _shower(stack: Stack, chaos: Chaos, points: list[CrashPoint], until: float, kills: int) -> None:
    while time.monotonic() < until or chaos.killed.total() < kills:
        if points and chaos.counts.total() % 4 == 3:
            point = points.pop()
            stack.marks.arm(point)
            chaos.counts[f"crash point {point}"] += 1
        else:
            chaos.anything()
        chaos.breathe()


if __name__ == "__main__":
    sys.exit(main())
