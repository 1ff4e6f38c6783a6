"""Measures two sides in turns and prints medians, spread and ratio; no figure ever decides a test."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

Measure = Callable[[], float]


class NotMeasuredError(Exception):
    """This machine lacks what a benchmark runs on; the text says what."""


@dataclass
class Comparison:
    """One target: ``ours / reference`` of rates, or of costs when ``lower_is_better``."""

    name: str
    what: str
    unit: str
    target: float
    lower_is_better: bool = False
    ours: list[float] = field(default_factory=list)
    reference: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    #: How long measuring it took.
    seconds: float = 0.0

    @property
    def ratio(self) -> float:
        """Median of the ratios of neighbours in time: what else the machine did hits both of a pair alike."""
        return statistics.median(a / b for a, b in zip(self.ours, self.reference, strict=True))

    @property
    def figure(self) -> str:
        """What is held against the target, for the table."""
        return f"{self.ratio:.3f}"

    @property
    def sides(self) -> str:
        """Both sides, for the table."""
        return f"{_spread(self.ours)} / {_spread(self.reference)} {self.unit}"

    @property
    def reached(self) -> bool:
        return self.ratio <= self.target if self.lower_is_better else self.ratio >= self.target

    def line(self) -> str:
        """One line for people."""
        return (
            f"{self.name:4} {self.what}: ours {_spread(self.ours)} | "
            f"reference {_spread(self.reference)} {self.unit} | "
            f"ratio {self.figure} (target {wanted(self)}) {mark(self)}{took(self)}"
        )


@dataclass
class Absolute:
    """One target without another side: a cost of ours that must stay below ``target``."""

    name: str
    what: str
    unit: str
    target: float
    ours: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    #: How long measuring it took.
    seconds: float = 0.0
    lower_is_better: bool = True

    @property
    def ratio(self) -> float:
        """The median itself."""
        return statistics.median(self.ours)

    @property
    def figure(self) -> str:
        return f"{self.ratio:.4g} {self.unit}"

    @property
    def sides(self) -> str:
        return f"{_spread(self.ours)} {self.unit}"

    @property
    def reached(self) -> bool:
        return self.ratio <= self.target

    def line(self) -> str:
        """One line for people."""
        return f"{self.name:4} {self.what}: {self.sides} (target {wanted(self)} {self.unit}) {mark(self)}{took(self)}"


Result = Comparison | Absolute


def wanted(result: Result) -> str:
    """The target with its direction."""
    return f"{'<=' if result.lower_is_better else '>='} {result.target:g}"


def took(result: Result) -> str:
    """How long it took, where that is known by row."""
    return f", {result.seconds:.0f} s" if result.seconds else ""


def mark(result: Result) -> str:
    return "reached" if result.reached else "MISSED"


def _spread(values: list[float]) -> str:
    median = statistics.median(values)
    return f"{median:.4g} [{min(values):.4g}..{max(values):.4g}]"


def compare(comparison: Comparison, ours: Measure, reference: Measure, pairs: int = 5) -> Comparison:
    """Fill ``comparison`` with ``pairs`` of runs, taking turns at who goes first."""
    began = time.monotonic()
    for turn in range(pairs):
        sides = [(ours, comparison.ours), (reference, comparison.reference)]
        for measure, values in sides if turn % 2 == 0 else reversed(sides):
            values.append(measure())
    comparison.seconds += time.monotonic() - began
    return comparison


def table(results: list[Result]) -> str:
    """All results as a Markdown table."""
    head = "| Id | What | Result | Target | | Ours / reference: median [min..max] |\n|---|---|---|---|---|---|"
    rows = [f"| {r.name} | {r.what} | {r.figure} | {wanted(r)} | {mark(r)} | {r.sides} |" for r in results]
    return "\n".join([head, *rows])


def record(path: Path, results: list[Result], facts: dict[str, str]) -> None:
    """Keep the raw figures with what machine they came from."""
    document = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpus": os.cpu_count(),
            "system": platform.platform(),
            "python": platform.python_version(),
            "load": os.getloadavg(),
            "gpu": "not measured on a GPU",
            **facts,
        },
        "results": [{**asdict(r), "ratio": r.ratio, "reached": r.reached} for r in results],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")
