"""What all tables share: the size of the job, the budget, the facts of the machine, and the rows they fill."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import pynvml
import torch

from dreamforge.spec import RenderParams

#: One image of 1024x1024 at 30 steps with guidance, decoding included: counted with torch's FLOP counter.
TFLOP_PER_IMAGE = 416.1
PROMPT = "a lighthouse in a storm, oil on canvas, dramatic light"


@dataclass(frozen=True)
class Bench:
    """One run of the tables."""

    smoke: bool
    folder: Path
    #: No table may take longer: a GPU is often lent by the quarter of an hour.
    budget_seconds: float = 420.0

    @property
    def where(self) -> str:
        return "cuda" if torch.cuda.is_available() else "cpu"

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.where == "cuda" else torch.float32

    @property
    def size(self) -> str:
        """Which of ``configs/``."""
        return "narrow" if self.smoke else "sdxl"

    @property
    def side(self) -> int:
        return 256 if self.smoke else 1024

    @property
    def images(self) -> int:
        return 2 if self.smoke else 20

    @property
    def warm_ups(self) -> int:
        return 1 if self.smoke else 5

    def params(self, **changes: Any) -> RenderParams:
        """The job of every row but where it says otherwise."""
        steps = 2 if self.smoke else 30
        base = {"prompt": PROMPT, "width": self.side, "height": self.side, "steps": steps}
        return RenderParams.model_validate({**base, **changes})

    def wait(self) -> None:
        """Until the device has done all it was given."""
        if self.where == "cuda":
            torch.cuda.synchronize()


@dataclass
class Row:
    """One line of a table: ours, and where there is one, a bare loop beside it in the same run."""

    name: str
    what: str
    unit: str
    goal: float
    stretch: float
    ours: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    more_is_better: bool = False
    #: True when the goal is about ours / bare.
    goal_is_ratio: bool = False
    #: Seconds for one full image, where the row is about that: gives TFLOP/s.
    seconds_per_image: float | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def value(self) -> float:
        return statistics.median(self.ours)

    @property
    def ratio(self) -> float | None:
        """Median of the ratios of neighbours in time."""
        if not self.bare:
            return None
        return statistics.median(a / b for a, b in zip(self.ours, self.bare, strict=True))

    @property
    def tflops(self) -> float | None:
        return TFLOP_PER_IMAGE / self.seconds_per_image if self.seconds_per_image else None

    def line(self, *, smoke: bool) -> str:
        """For people; a smoke run's figures are held against nothing."""
        if not self.ours:
            return f"{self.name:5} {self.what}: not measured on a GPU"
        parts = [f"{self.name:5} {self.what}: {_spread(self.ours)} {self.unit}"]
        if (ratio := self.ratio) is not None:
            parts.append(f"bare {_spread(self.bare)}, ratio {ratio:.3f}")
        if not smoke:
            if self.tflops is not None:
                parts.append(f"{self.tflops:.0f} TFLOP/s")
            sign = ">=" if self.more_is_better else "<="
            parts.append(f"goal {sign} {self.goal:g} ({self.stretch:g}) {self.mark()}")
        return "\n        ".join([" | ".join(parts), *self.notes])

    def mark(self) -> str:
        held = self.ratio if self.goal_is_ratio and self.ratio is not None else self.value
        reached, stretched = ((held >= g) if self.more_is_better else (held <= g) for g in (self.goal, self.stretch))
        return "STRETCH" if stretched else "reached" if reached else "MISSED"


def in_turns(row: Row, ours: Callable[[], float], bare: Callable[[], float] | None, times: int, until: float) -> None:
    """Fill ``row``, taking turns at who goes first; at least once, and not beyond the moment ``until``."""
    for turn in range(times):
        sides = [(ours, row.ours), *([(bare, row.bare)] if bare is not None else [])]
        for measure, values in sides if turn % 2 == 0 else reversed(sides):
            values.append(measure())
        if time.monotonic() > until:
            row.notes.append(f"the time was up after {turn + 1} of {times}")
            return


def timed(bench: Bench, work: Callable[[], object]) -> float:
    """Seconds until the device has done ``work``."""
    bench.wait()
    begun = time.perf_counter()
    work()
    bench.wait()
    return time.perf_counter() - begun


@contextmanager
def freed() -> Iterator[None]:
    """What a table loaded is gone afterwards."""
    try:
        yield
    finally:
        torch.compiler.reset()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def facts(bench: Bench) -> dict[str, object]:
    """What machine, and in which state; read before and after each table."""
    known: dict[str, object] = {"torch": torch.__version__, "diffusers": diffusers.__version__, "where": bench.where}
    if bench.where != "cuda":
        return {**known, "gpu": "not measured on a GPU"}
    known["gpu"] = torch.cuda.get_device_name()
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(torch.cuda.current_device())
        known["driver"] = str(pynvml.nvmlSystemGetDriverVersion())
        known["sm_mhz"] = pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)
        known["memory_mhz"] = pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM)
        known["celsius"] = pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)
        known["watts"] = pynvml.nvmlDeviceGetPowerUsage(handle) / 1000
    except pynvml.NVMLError as error:
        known["nvml"] = str(error)
    return known


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.4g} [{min(values):.4g}..{max(values):.4g}]"
