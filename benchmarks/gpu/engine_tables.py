"""Rows of the engine alone: H1, H2, H3, H6, H9, H10. Ours and diffusers' own loop take turns on one device."""

import gc
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from benchmarks.gpu import model
from benchmarks.gpu.bench import Bench, Row, freed, in_turns, timed
from dreamforge.spec import RenderParams
from dreamforge_runner.backends.base import Item
from dreamforge_runner.backends.sdxl.engine import Engine, loading
from dreamforge_runner.backends.sdxl.plan_settings import PlanSettings

_MIB = 1 << 20


class Rig:
    """An engine and, of the same weights, diffusers' own pipeline."""

    def __init__(self, bench: Bench, **plan: object) -> None:
        self.bench = bench
        sizes = {"sdxl_buckets": f"{bench.side}x{bench.side}", "sdxl_compile_cache_path": bench.folder / "compiled"}
        settings = PlanSettings.model_validate({"sdxl_compile": "off", **sizes, **plan})
        self.engine = Engine(settings)
        self.pipe = model.pipeline(bench.size, bench.where, bench.dtype)
        loading.place(self.pipe, self.engine.plan, bench.where)
        self.engine.adopt(self.pipe)
        self._seed = 0

    def begin(self, params: RenderParams) -> None:
        for notice in self.engine.begin(params):
            print(f"        {notice.code}: {notice.message}")
        self._conditions = self._encode(params)

    def ours(self, together: int = 1) -> list[Any]:
        """Latents of the next items."""
        first, self._seed = self._seed, self._seed + together
        return self.engine.denoise([Item(seed, seed) for seed in range(first, self._seed)], lambda _: True)

    def image(self) -> None:
        """One image, from seed to pixels on the host."""
        self.engine.decode(self.ours()[0])

    def bare(self, params: RenderParams) -> None:
        """The same with diffusers' pipeline, called as its documentation does; nothing is told, nothing kept."""
        self._seed += 1
        self.pipe(
            width=params.width,
            height=params.height,
            num_inference_steps=params.steps,
            guidance_scale=params.guidance,
            generator=torch.Generator("cpu").manual_seed(self._seed),
            output_type="pt",
            **self._conditions,
        ).images.cpu()

    def _encode(self, params: RenderParams) -> dict[str, Any]:
        names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
        with torch.no_grad():
            found = self.pipe.encode_prompt(prompt=params.prompt, do_classifier_free_guidance=params.guidance > 1)
        return dict(zip(names, found, strict=True))


def seconds(bench: Bench, row: Row, params: RenderParams, **plan: object) -> Row:
    """s/image under a plan, beside the bare loop on the same (compiled or not) modules."""
    until = time.monotonic() + bench.budget_seconds
    with freed():
        rig = Rig(bench, **plan)
        rig.begin(params)
        row.notes.append(f"plan {rig.engine.plan.label}")
        first = timed(bench, rig.image)
        row.notes.append(f"first image {first:.1f} s (compiling included)")
        for _ in range(bench.warm_ups):
            rig.image()
            rig.bare(params)
        in_turns(
            row, lambda: timed(bench, rig.image), lambda: timed(bench, lambda: rig.bare(params)), bench.images, until
        )
        if params.steps == 30 and params.guidance > 1:
            row.seconds_per_image = row.value
        rig.engine.end()
    return row


def h1(bench: Bench) -> Sequence[Row]:
    """Eager."""
    return [seconds(bench, Row("H1", "eager, VAE bf16", "s/image", 2.1, 1.9), bench.params())]


def h2(bench: Bench) -> Sequence[Row]:
    """Compiled, both ways."""
    modes = ("regional",) if bench.smoke else ("regional", "full")
    return [
        seconds(
            bench, Row(f"H2{mode[0]}", f"compiled: {mode}", "s/image", 1.60, 1.30), bench.params(), sdxl_compile=mode
        )
        for mode in modes
    ]


def h3(bench: Bench) -> Sequence[Row]:
    """Images a second by micro-batch, decoding beside the next batch as the runner does."""
    rows = []
    sizes = (1, 2) if bench.smoke else (1, 2, 4, 8)
    for together in sizes:
        row = Row(f"H3k{together}", f"micro-batch of {together}", "img/s", 0.80, 1.00, more_is_better=True)
        with freed():
            rig = Rig(bench, sdxl_micro_batch=together, sdxl_compile="off" if bench.smoke else "regional")
            rig.begin(bench.params(count=16))
            _stream(rig, together, 1)
            until = time.monotonic() + bench.budget_seconds / len(sizes) / 2
            batches = max(1, (2 if bench.smoke else 16) // together)
            in_turns(row, lambda: batches * together / _stream(rig, together, batches), None, 3, until)  # noqa: B023
            rig.engine.end()
        row.seconds_per_image = 1 / row.value
        rows.append(row)
    best = max(rows, key=lambda row: row.value)
    best.notes.append("the best of these counts")
    return rows


def _stream(rig: Rig, together: int, batches: int) -> float:
    def work() -> None:
        with ThreadPoolExecutor(1) as decoder:
            done = [decoder.submit(rig.engine.decode, one) for _ in range(batches) for one in rig.ours(together)]
            for future in done:
                future.result()

    return timed(rig.bench, work)


def h6(bench: Bench) -> Sequence[Row]:
    """The VAE's decoder, from latents on the device to pixels on the host."""
    rows = []
    for mode in ("off",) if bench.smoke else ("off", "full"):
        row = Row(f"H6{mode[0]}", f"VAE decode, compile {mode}", "ms", 50, 25)
        with freed():
            rig = Rig(bench, sdxl_compile=mode)
            rig.begin(bench.params(steps=1))
            (latents,) = rig.ours()
            for _ in range(bench.warm_ups):
                rig.engine.decode(latents)
            until = time.monotonic() + bench.budget_seconds / 2
            in_turns(row, _milliseconds(bench, rig, latents), None, bench.images, until)
            rig.engine.end()
        rows.append(row)
    return rows


def _milliseconds(bench: Bench, rig: Rig, latents: Any) -> Callable[[], float]:
    return lambda: timed(bench, lambda: rig.engine.decode(latents)) * 1000


def h9(bench: Bench) -> Sequence[Row]:
    """Four steps without guidance: what few-step checkpoints are run with."""
    row = Row("H9", "4 steps, no guidance", "s/image", 0.30, 0.20)
    params = bench.params(steps=2 if bench.smoke else 4, guidance=0.0)
    return [seconds(bench, row, params, sdxl_compile="off" if bench.smoke else "regional")]


def h10(bench: Bench) -> Sequence[Row]:
    """Memory: what a job leaves behind, and its peak."""
    left = Row("H10", "allocated after a job, less before", "MiB", 64, 1)
    peak = Row("H10p", "peak of a job at batch 1", "GiB", 13, 11)
    with freed():
        rig = Rig(bench)
        for _ in range(1 if bench.smoke else 3):
            gc.collect()
            before = torch.cuda.memory_allocated() if bench.where == "cuda" else 0
            rig.begin(bench.params())
            rig.image()
            rig._conditions = {}
            memory = rig.engine.end()
            if memory is not None:
                left.ours.append(abs(torch.cuda.memory_allocated() - before) / _MIB)
                peak.ours.append(memory.allocated_peak_mib / 1024)
                told = f"reserved: peak {memory.reserved_peak_mib:.0f} MiB, after {memory.reserved_end_mib:.0f} MiB"
                peak.notes.append(told)
    return [left, peak]
