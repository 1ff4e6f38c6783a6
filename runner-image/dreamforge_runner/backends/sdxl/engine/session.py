"""The engine: one SDXL pipeline on one device, from ``load`` to ``end``.

The caller's thread denoises, a helper thread decodes. What the two share is read-only: the decoder touches the
VAE and nothing else of the pipeline.
"""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from dreamforge.errors import DreamForgeError, ErrorCode, JobError
from dreamforge.events import AllocatorMemory, Level
from dreamforge.spec import RenderParams
from dreamforge_runner.backends.base import Item, Notice, OnStep, Pixels
from dreamforge_runner.backends.sdxl import capacity, faults
from dreamforge_runner.backends.sdxl.compile_cache import CompileCache
from dreamforge_runner.backends.sdxl.engine import compiling, loading
from dreamforge_runner.backends.sdxl.engine.decoding import Decoder
from dreamforge_runner.backends.sdxl.engine.denoising import Denoiser, Latents, encode
from dreamforge_runner.backends.sdxl.engine.samplers import Sampler
from dreamforge_runner.backends.sdxl.plan import Bucket, Compile, Plan
from dreamforge_runner.backends.sdxl.plan_settings import PlanSettings

T = TypeVar("T")
_MIB = 2**20
#: Two, since a multi-step scheduler's second step is another one than its first.
_WARM_UP_STEPS = 2


@dataclass(frozen=True)
class _Job:
    """What the items of a job share."""

    params: RenderParams
    denoiser: Denoiser


class Engine:
    """One SDXL pipeline on one device: CUDA when there is any, else the CPU."""

    def __init__(self, settings: PlanSettings) -> None:
        loading.silence_libraries()
        device = loading.device(settings.sdxl_plan)
        self._where = "cuda" if device.cuda else "cpu"
        self.plan = settings.choose(device)
        # Nobody waits minutes for the compiler in a job unless an operator asked for it: else kernels come from
        # warming up or from the cache. What a cache that has some lacks is compiled, and kept for the next.
        self._compiler_at_hand = settings.sdxl_compile is not None
        self._cache: CompileCache | None = None
        if self.plan.compile is not Compile.OFF and settings.sdxl_compile_cache_path is not None:
            self._cache = CompileCache(settings.sdxl_compile_cache_path, compiling.facts(device, self.plan))
        self._pipe: Any = None
        self._decoder: Decoder | None = None
        self._scheduler_config: Any = None
        self._job: _Job | None = None
        self._notices: list[Notice] = []
        self._resident_bytes = 0
        #: Whether the file on disk holds what this process had at its start, and how much was compiled since.
        self._restored, self._kept = False, compiling.compilations()
        # The libraries' objects live as long as the process; without them each later collection takes
        # milliseconds instead of a quarter of a second.
        gc.freeze()

    def load(self, path: Path, config: Path) -> None:
        """Replace the loaded pipeline; on failure none is loaded, and another ``load`` may follow."""
        self._replace(lambda: loading.build(path, config, self.plan, self._where), path)

    def load_converted(self, folder: Path, config: Path) -> None:
        """The same from the converted files in a model's ``folder``."""
        self._replace(lambda: loading.build_converted(folder, config, self.plan, self._where), folder)

    def tell(self, notice: Notice) -> None:
        """Have the next job's log say it."""
        self._notices.append(notice)

    def _replace(self, build: Callable[[], Any], source: Path) -> None:
        self._unload()
        self.adopt(self._guarded(build, lambda error: faults.while_loading(error, source)))

    def adopt(self, pipe: Any) -> None:
        """Take a pipeline that is on the device already."""
        if self._cache is not None:
            found, notices = compiling.restore(self._cache)
            self._compiler_at_hand |= found
            self._restored = found
            self._notices += notices
        if self.plan.compile is not Compile.OFF:
            compiling.prepare(pipe, self.plan)
        self._pipe, self._scheduler_config = pipe, pipe.scheduler.config
        self._decoder = Decoder(pipe.vae)

    def warm_up(self) -> Sequence[Notice]:
        """Compile and run once what jobs will run; without a GPU only what is to be compiled. Never raises."""
        if self.plan.compile is not Compile.OFF:
            sizes: Sequence[Bucket] = self.plan.buckets
        else:
            sizes = self.plan.buckets[:1] if self._where == "cuda" else ()
        self._compiler_at_hand = True
        try:
            for size in sizes:
                self._guarded(partial(self._try_out, size))
        except JobError as error:
            message = f"Warming up ended early ({error.code}): {error.message}"
            self._notices.append(Notice("warm_up.failed", message, Level.WARNING))
        self.end()
        return self._take_notices()

    def begin(self, params: RenderParams) -> Sequence[Notice]:
        truncated = self._guarded(lambda: self._begin(params))
        return [*self._take_notices(), *truncated]

    def denoise(self, items: Sequence[Item], on_step: OnStep) -> list[Latents]:
        """Each item's latents, denoised together."""
        return self._guarded(lambda: self._run(items, on_step))

    def decode(self, latents: Latents) -> Pixels:
        return self._guarded(lambda: self._decode(latents))

    def end(self) -> AllocatorMemory | None:
        """Drop the job's tensors and give cached blocks back."""
        self._job = None
        gc.collect()
        self._keep_kernels()
        if self._where != "cuda":
            return None
        torch.cuda.empty_cache()
        return AllocatorMemory(
            allocated_start_mib=self._resident_bytes / _MIB,
            allocated_peak_mib=torch.cuda.max_memory_allocated() / _MIB,
            allocated_end_mib=torch.cuda.memory_allocated() / _MIB,
            reserved_peak_mib=torch.cuda.max_memory_reserved() / _MIB,
            reserved_end_mib=torch.cuda.memory_reserved() / _MIB,
        )

    def _unload(self) -> None:
        self._job = self._pipe = self._scheduler_config = self._decoder = None
        if self.plan.compile is not Compile.OFF:
            torch.compiler.reset()  # compiled code keeps what it was made from
        gc.collect()
        if self._where == "cuda":
            torch.cuda.empty_cache()

    def _begin(self, params: RenderParams) -> Sequence[Notice]:
        if self._where == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self._resident_bytes = torch.cuda.memory_allocated()
        pipe = self._loaded()
        plan = self.plan
        if plan.compile is not Compile.OFF:
            compiled = self._compiler_at_hand and plan.compiles(params.width, params.height)
            compiling.stance(compiled=compiled)
            plan = plan if compiled else replace(plan, compile=Compile.OFF)
        sampler = Sampler(params.scheduler, self._scheduler_config, params.steps, self._where)
        conditions = encode(pipe, params, self._where)
        self._job = _Job(params, Denoiser(pipe.unet, sampler, conditions, params, plan))
        negative = params.negative_prompt if conditions.guided else None
        texts = {"prompt": params.prompt, "negative prompt": negative}
        return [notice for label, text in texts.items() if text and (notice := self._truncation(label, text))]

    def _try_out(self, size: Bucket) -> None:
        """Two steps, one with guidance and one without, and a picture; alone and in a batch."""
        params = RenderParams(
            prompt="warm up", width=size.width, height=size.height, steps=_WARM_UP_STEPS, guidance_cutoff=0.5
        )
        self._begin(params)
        for together in sorted({1, self.plan.micro_batch}):
            latents = self._run([Item(index, index) for index in range(together)], lambda _: True)
            self._decode(latents[0])

    def _run(self, items: Sequence[Item], on_step: OnStep) -> list[Latents]:
        job = self._job
        if job is None:
            raise JobError(ErrorCode.INTERNAL, "denoise() was called before begin()")
        try:
            return job.denoiser.run(items, on_step)
        except compiling.FAILURES as error:
            job.denoiser.plan = self._without_compiler(error)
        return job.denoiser.run(items, on_step)

    def _decode(self, latents: Latents) -> Pixels:
        decoder = self._decoder
        if decoder is None:
            raise JobError(ErrorCode.INTERNAL, "no model is loaded")
        try:
            return decoder.run(latents)
        except compiling.FAILURES as error:
            plan = self._without_compiler(error)
        return decoder.run(replace(latents, plan=plan))

    def _without_compiler(self, error: BaseException) -> Plan:
        """The plan from here on; the notice comes with the next job's."""
        compiling.stance(compiled=False)
        self.plan = replace(self.plan, compile=Compile.OFF)
        self._notices.append(compiling.failed(error))
        return self.plan

    def _keep_kernels(self) -> None:
        """Write down what was compiled since the last time."""
        if self._cache is None:
            return
        now = compiling.compilations() if self._restored else compiling.kernels()
        if now > self._kept:
            self._notices += compiling.keep(self._cache)
            self._kept, self._restored = compiling.compilations(), True

    def _take_notices(self) -> list[Notice]:
        taken, self._notices = self._notices, []
        return taken

    def _truncation(self, label: str, text: str) -> Notice | None:
        """Both text encoders cut what is too long without a word; say by how much, never what."""
        tokenizers = (self._pipe.tokenizer, self._pipe.tokenizer_2)
        cut = max(len(tokenizer(text).input_ids) - tokenizer.model_max_length for tokenizer in tokenizers)
        if cut <= 0:
            return None
        room = min(tokenizer.model_max_length for tokenizer in tokenizers) - 2
        return Notice(
            "prompt.truncated",
            f"The {label} is {cut} tokens longer than the {room} that SDXL's text encoders read; "
            f"its last {cut} tokens have no effect.",
            Level.WARNING,
        )

    def _loaded(self) -> Any:
        if self._pipe is None:
            raise JobError(ErrorCode.INTERNAL, "no model is loaded")
        return self._pipe

    def _guarded(
        self, work: Callable[[], T], otherwise: Callable[[BaseException], JobError] = faults.while_rendering
    ) -> T:
        """Run ``work``; what torch or diffusers raises becomes a :class:`JobError`.

        The new error is raised outside the handler: until then the old one's frames hold tensors, and asking
        CUDA for memory figures (or freeing memory) would find the device still full.
        """
        try:
            return work()
        except DreamForgeError:
            raise
        except Exception as error:  # noqa: BLE001 - the edge to torch and diffusers, which raise anything
            code, failure, refused = faults.code_of(error), otherwise(error), faults.refused_bytes(error)
        if code is ErrorCode.GPU_OOM:
            failure = JobError(code, self._out_of_memory(refused))
            if self._where == "cuda":
                torch.cuda.empty_cache()  # fewer items at once may fit now
        elif code is not None:
            failure = JobError(code, "the GPU or its driver failed; the render process is replaced")
        raise failure

    def _out_of_memory(self, refused: int) -> str:
        """What did not fit, and what would have."""
        params = self._job.params if self._job else None
        if self._where != "cuda":
            return (
                f"too little GPU memory for {capacity.Size(params.width, params.height) if params else 'the model'}"
            )
        gc.collect()
        free, total = torch.cuda.mem_get_info()
        reserved = torch.cuda.memory_reserved()
        if params is None:
            return capacity.explain_model(free + reserved, total)
        demanded = torch.cuda.max_memory_allocated() + refused
        number = self._loaded().vae.dtype.itemsize
        return capacity.explain(
            params, capacity.Measured(free, total, reserved, self._resident_bytes, demanded, number)
        )
