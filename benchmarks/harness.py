"""Measures two sides in turns and prints medians, spread and ratio; no figure ever decides a test."""

import json
import os
import platform
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

Measure = Callable[[], float]


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

    @property
    def ratio(self) -> float:
        """Median of the ratios of neighbours in time: what else the machine did hits both of a pair alike."""
        return statistics.median(a / b for a, b in zip(self.ours, self.reference, strict=True))

    @property
    def reached(self) -> bool:
        return self.ratio <= self.target if self.lower_is_better else self.ratio >= self.target

    def line(self) -> str:
        """One line for people."""
        sign = "<=" if self.lower_is_better else ">="
        mark = "reached" if self.reached else "MISSED"
        return (
            f"{self.name:4} {self.what}: ours {_spread(self.ours)} | "
            f"reference {_spread(self.reference)} {self.unit} | "
            f"ratio {self.ratio:.3f} (target {sign} {self.target}) {mark}"
        )


def _spread(values: list[float]) -> str:
    median = statistics.median(values)
    return f"{median:.4g} [{min(values):.4g}..{max(values):.4g}]"


def compare(comparison: Comparison, ours: Measure, reference: Measure, pairs: int = 5) -> Comparison:
    """Fill ``comparison`` with ``pairs`` of runs, taking turns at who goes first."""
    for turn in range(pairs):
        sides = [(ours, comparison.ours), (reference, comparison.reference)]
        for measure, values in sides if turn % 2 == 0 else reversed(sides):
            values.append(measure())
    print(comparison.line(), flush=True)
    return comparison


def record(path: Path, comparisons: list[Comparison]) -> None:
    """Keep the raw figures with what machine they came from."""
    document = {
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()},
        "results": [{**asdict(c), "ratio": c.ratio, "reached": c.reached} for c in comparisons],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")
