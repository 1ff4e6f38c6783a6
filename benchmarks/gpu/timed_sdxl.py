"""The real SDXL backend with a stopwatch, loaded into the render child as a runner plugin.

Each job adds lines to the file that ``DF_BENCH_TRACE`` names: when an item's denoising was entered, when its first
step was queued (``time.monotonic()``, one clock for a machine), and how long the device had nothing to do before it.
"""

import json
import time
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from dreamforge.events import AllocatorMemory
from dreamforge.settings import DfSettings, load
from dreamforge_runner.backends.base import Item, OnStep
from dreamforge_runner.backends.sdxl import SdxlBackend

KIND = "sdxl-timed"
TARGET = "benchmarks.gpu.timed_sdxl:TimedSdxl"


class TraceSettings(DfSettings):
    """Where the stopwatch writes."""

    bench_trace: Path = Field(default=Path("trace.jsonl"), description="File of a benchmark's stopwatch.")


class TimedSdxl(SdxlBackend):
    """Writes down what the runner does to the device between two items."""

    def __init__(self) -> None:
        super().__init__()
        self._trace = load(TraceSettings).bench_trace
        self._items: list[dict[str, float]] = []
        self._ends: list[Any] = []
        self._starts: list[Any] = []

    def denoise(self, item: Item, on_step: OnStep) -> Any:
        entered = time.monotonic()
        first = 0.0

        def timed(done: int) -> bool:
            nonlocal first
            first = first or time.monotonic()
            return on_step(done)

        self._starts.append(_mark())
        latents = super().denoise(item, timed)
        self._ends.append(_mark())
        self._items.append({"item": item.index, "entered": entered, "first_step": first})
        return latents

    def end(self) -> AllocatorMemory | None:
        memory = super().end()
        for index, line in enumerate(self._items):
            if index:
                line["idle_ms"] = _between(self._ends[index - 1], self._starts[index])
        with self._trace.open("a") as trace:
            trace.writelines(json.dumps(line) + "\n" for line in self._items)
        self._items, self._ends, self._starts = [], [], []
        return memory


def _mark() -> Any:
    """A moment on the device's own clock; the host's where there is no device."""
    if not torch.cuda.is_available():
        return time.monotonic()
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch: untyped
    event.record()
    return event


def _between(end: Any, start: Any) -> float:
    if isinstance(end, float):
        return float(start - end) * 1000
    torch.cuda.synchronize()
    return float(end.elapsed_time(start))
