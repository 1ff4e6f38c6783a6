"""What a soak prints and keeps: kills by victim, faults by kind, sizes, times, and how often each promise broke."""

import json
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from dreamforge.crashpoints import CrashPoint
from tests.faults.chaos import Outage

#: What the first word of an invariant's name promises.
PROMISES = {
    "I1": "jobs lost",
    "I2": "keys without their one job",
    "I3": "artifacts twice, missing or of other bytes",
    "I4": "second or missing terminal events",
    "I5": "jobs stuck past their deadline + 120 s",
    "I6": "attempts out of order or left open",
    "I7": "gaps in replays and live streams",
    "I8": "attempts without a GPU verdict",
    "I9": "prompts or secrets told",
}
_VICTIMS = {
    "api": "API",
    "worker": "worker (ingest and control)",
    "runner": "runner supervisor",
    "child": "render child",
    "control": "worker (ingest and control)",
    "ingest": "worker (ingest and control)",
    "redis": "Redis",
    "postgres": "PostgreSQL",
}
DRAIN_SECONDS = 60.0


@dataclass
class Report:
    """All of one soak."""

    seed: int
    minutes: float
    store: str
    killed: Mapping[str, int]
    faults: Mapping[str, int]
    #: Points that were armed and killed.
    points: list[CrashPoint]
    looked_at: Mapping[str, int]
    seconds: Mapping[str, float]
    outage: Outage
    broken: Mapping[str, list[str]]
    when: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def good(self) -> bool:
        return not any(self.broken.values())

    def show(self) -> None:
        points = [_VICTIMS[point.partition(".")[0]] for point in self.points]
        by_lot = {_VICTIMS[part]: number for part, number in self.killed.items()}
        _table("killed by lot", by_lot.items(), total=True)
        _table("killed at crash points", [(name, points.count(name)) for name in sorted(set(points))], total=True)
        _table("faults", sorted(self.faults.items()), total=True)
        _table("looked at", self.looked_at.items())
        _table("invariants broken", self.promises().items(), total=True)
        _table("in detail", [(name, len(found)) for name, found in sorted(self.broken.items())])
        print("\nseconds: " + ", ".join(f"{name} {value:.1f}" for name, value in self.seconds.items()))
        print(
            f"PostgreSQL refused connections for {self.outage.away:.0f} s; {self.outage.backlog} jobs were open when"
        )
        print(f"it was back; the last of them ended {self.outage.drained:.1f} s later (bound: {DRAIN_SECONDS:.0f} s)")
        for name, found in self.broken.items():
            if found:
                print(f"{name}:", *found[:20], sep="\n  ")
        print("every promise held" if self.good else "BROKEN", flush=True)

    def promises(self) -> dict[str, int]:
        """How often each was broken; what belongs to none has a row of its own."""
        rows = {f"{number} {what}": 0 for number, what in PROMISES.items()}
        for name, found in self.broken.items():
            number = name.partition(" ")[0]
            row = f"{number} {PROMISES[number]}" if number in PROMISES else name
            rows[row] = rows.get(row, 0) + len(found)
        return rows

    def keep(self, path: Path) -> None:
        machine = {"cpus": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()}
        kept = {**asdict(self), "invariants": self.promises(), "verdict": "held" if self.good else "broken"}
        path.write_text(json.dumps({"machine": machine, **kept}, indent=1) + "\n")


def _table(title: str, rows: Iterable[tuple[str, int]], *, total: bool = False) -> None:
    rows = list(rows)
    print(f"\n{title}")
    for name, count in rows:
        print(f"  {name:<46}{count:>8}")
    if total:
        print(f"  {'total':<46}{sum(count for _, count in rows):>8}", flush=True)
