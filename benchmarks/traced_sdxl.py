"""The real SDXL backend with a stopwatch, loaded into the render child as a runner plugin.

Each item adds a line to ``trace.jsonl`` in the runner's working directory. Times are ``time.monotonic()``, one clock
for all processes of a machine.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dreamforge.spec import RenderParams
from dreamforge_runner.backends.base import Item, Notice, OnStep
from dreamforge_runner.backends.sdxl import SdxlBackend

TRACE = Path("trace.jsonl")
KIND = "sdxl-traced"
TARGET = "benchmarks.traced_sdxl:TracedSdxl"
COMPARED_KIND = "sdxl-compared"
COMPARED_TARGET = "benchmarks.traced_sdxl:ComparedSdxl"


class TracedSdxl(SdxlBackend):
    """Writes down when an item's denoising began, when its first step was done, when it ended, and what the runner's
    own callback took in between."""

    def begin(self, params: RenderParams) -> Sequence[Notice]:
        self._steps = params.steps
        return super().begin(params)

    def denoise(self, item: Item, on_step: OnStep) -> Any:
        entered = time.monotonic()
        extra = self._before(item)
        stamps: list[float] = []
        callback_seconds = callback_cpu = 0.0

        def timed(done: int) -> bool:
            nonlocal callback_seconds, callback_cpu
            begun, cpu = time.monotonic(), time.thread_time()
            go_on = on_step(done)
            callback_cpu += time.thread_time() - cpu
            callback_seconds += time.monotonic() - begun
            stamps.append(begun)
            return go_on

        begun = time.monotonic()
        latents = super().denoise(item, timed)
        ended = time.monotonic()
        line = {
            "item": item.index,
            "entered": entered,
            "first_step": stamps[0],
            "ended": ended,
            "step_us": callback_seconds / len(stamps) * 1e6,
            "step_cpu_us": callback_cpu / len(stamps) * 1e6,
            "denoise_ms": (ended - begun) / len(stamps) * 1e3,
            **extra,
        }
        with TRACE.open("a") as trace:
            trace.write(json.dumps(line) + "\n")
        return latents

    def _before(self, item: Item) -> dict[str, float]:
        return {}


class ComparedSdxl(TracedSdxl):
    """The same, and each item is first denoised without the runner's callback, in the same process and thread."""

    def _before(self, item: Item) -> dict[str, float]:
        begun = time.monotonic()
        SdxlBackend.denoise(self, item, lambda _: True)
        return {"bare_ms": (time.monotonic() - begun) / self._steps * 1e3}
