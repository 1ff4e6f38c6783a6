"""torch and diffusers: the one module that imports them, inside the render child only.

The caller's thread denoises, a helper thread decodes. What the two share is read-only: the decoder touches the
VAE and nothing else of the pipeline, and on CUDA it works on a stream of its own.
"""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import diffusers
import torch
import transformers
from diffusers import StableDiffusionXLPipeline

from dreamforge.errors import DreamForgeError, ErrorCode, JobError
from dreamforge.events import Level
from dreamforge.spec import RenderParams, Scheduler
from dreamforge_runner.backends.base import Item, Memory, Notice, OnStep, Pixels, RenderCanceled
from dreamforge_runner.backends.sdxl import capacity, faults
from dreamforge_runner.backends.sdxl.schedulers import RECIPES

T = TypeVar("T")
_MIB = 2**20


@dataclass(frozen=True)
class Latents:
    """A denoised item; on CUDA ``ready`` fires when its kernels are done."""

    tensor: torch.Tensor
    ready: torch.cuda.Event | None


@dataclass(frozen=True)
class _Job:
    """What the items of a job share."""

    params: RenderParams
    #: Keyword arguments of the pipeline call: prompt embeddings and their negatives.
    embeddings: dict[str, torch.Tensor | None]


class Engine:
    """One SDXL pipeline on one device: CUDA when there is any, else the CPU."""

    def __init__(self, *, compile_blocks: bool = False) -> None:
        _silence_libraries()
        self._cuda = torch.cuda.is_available()
        self._compile_blocks = compile_blocks and self._cuda
        self._decode_stream = torch.cuda.Stream() if self._cuda else None  # type: ignore[no-untyped-call] # torch: untyped
        self._pipe: Any = None
        self._scheduler_config: Any = None
        self._job: _Job | None = None
        self._resident_bytes = 0
        # The libraries' objects live as long as the process; without them each later collection takes
        # milliseconds instead of a quarter of a second.
        gc.freeze()

    def load(self, path: Path, config: Path) -> None:
        """Replace the loaded pipeline; on failure none is loaded, and another ``load`` may follow."""
        self._unload()
        pipe = self._guarded(lambda: self._build(path, config), lambda error: faults.while_loading(error, path))
        self._pipe, self._scheduler_config = pipe, pipe.scheduler.config

    def begin(self, params: RenderParams) -> Sequence[Notice]:
        return self._guarded(lambda: self._begin(params))

    def denoise(self, item: Item, on_step: OnStep) -> Latents:
        return self._guarded(lambda: self._denoise(item, on_step))

    def decode(self, latents: Latents) -> Pixels:
        return self._guarded(lambda: self._decode(latents))

    def end(self) -> Memory | None:
        """Drop the job's tensors and give cached blocks back; figures are what torch had reserved."""
        self._job = None
        gc.collect()
        if not self._cuda:
            return None
        torch.cuda.empty_cache()
        return Memory(peak_mib=torch.cuda.max_memory_reserved() / _MIB, end_mib=torch.cuda.memory_reserved() / _MIB)

    def _build(self, path: Path, config: Path) -> Any:
        dtype = _device_dtype() if self._cuda else torch.float32
        pipe = StableDiffusionXLPipeline.from_single_file(
            str(path), config=str(config), local_files_only=True, add_watermarker=False, torch_dtype=dtype
        )
        _check_complete(pipe, path)
        pipe.set_progress_bar_config(disable=True)
        if self._cuda:
            pipe.to("cuda")
            if dtype is torch.float16:
                pipe.vae.to(torch.float32)  # SDXL's VAE overflows in half precision.
            pipe.unet.to(memory_format=torch.channels_last)
            pipe.vae.to(memory_format=torch.channels_last)
            torch.cuda.synchronize()  # The decode stream does not wait for the uploads by itself.
        if self._compile_blocks:
            pipe.unet.compile_repeated_blocks(fullgraph=True, dynamic=False)
        return pipe

    def _unload(self) -> None:
        self._job = self._pipe = self._scheduler_config = None
        gc.collect()
        if self._cuda:
            torch.cuda.empty_cache()

    def _begin(self, params: RenderParams) -> Sequence[Notice]:
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
            self._resident_bytes = torch.cuda.memory_allocated()
        pipe = self._loaded()
        pipe.scheduler = self._scheduler(params.scheduler)
        guided = params.guidance > 1
        negative = (params.negative_prompt or None) if guided else None
        with torch.no_grad():
            positive, minus, pooled, minus_pooled = pipe.encode_prompt(
                prompt=params.prompt, negative_prompt=negative, do_classifier_free_guidance=guided
            )
        self._job = _Job(
            params,
            {
                "prompt_embeds": positive,
                "negative_prompt_embeds": minus,
                "pooled_prompt_embeds": pooled,
                "negative_pooled_prompt_embeds": minus_pooled,
            },
        )
        texts = {"prompt": params.prompt, "negative prompt": negative}
        return [notice for label, text in texts.items() if text and (notice := self._truncation(label, text))]

    def _scheduler(self, wanted: Scheduler) -> Any:
        recipe = RECIPES[wanted]
        return getattr(diffusers, recipe.class_name).from_config(self._scheduler_config, **recipe.overrides)

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

    def _denoise(self, item: Item, on_step: OnStep) -> Latents:
        if self._job is None:
            raise JobError(ErrorCode.INTERNAL, "denoise() was called before begin()")
        params = self._job.params

        def after_step(_pipe: Any, index: int, _timestep: Any, kept: dict[str, Any]) -> dict[str, Any]:
            # Raising leaves the loop at once and needs no private switch of the pipeline.
            if not on_step(index + 1):
                raise RenderCanceled(f"item {item.index} stopped after {index + 1} steps")
            return kept

        (tensor,) = self._loaded()(
            width=params.width,
            height=params.height,
            num_inference_steps=params.steps,
            guidance_scale=params.guidance,
            generator=torch.Generator("cpu").manual_seed(item.seed),  # The same noise on every device.
            output_type="latent",
            return_dict=False,
            callback_on_step_end=after_step,
            callback_on_step_end_tensor_inputs=[],
            **self._job.embeddings,
        )
        return Latents(tensor, torch.cuda.current_stream().record_event() if self._cuda else None)

    def _decode(self, latents: Latents) -> Pixels:
        vae = self._loaded().vae
        # stream(None) does nothing, so the CPU takes the same path.
        with torch.no_grad(), torch.cuda.stream(self._decode_stream):
            if self._decode_stream is not None and latents.ready is not None:
                self._decode_stream.wait_event(latents.ready)
                latents.tensor.record_stream(self._decode_stream)
            image = vae.decode(_unscaled(latents.tensor, vae), return_dict=False)[0][0].float()
            if not bool(torch.isfinite(image).all()):
                raise JobError(ErrorCode.MODEL_INVALID, "the model gave pixels that are not numbers; is it damaged?")
            rgb = image.mul(0.5).add(0.5).clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0)
            height, width, _ = rgb.shape
            return Pixels(width, height, rgb.contiguous().cpu().numpy().tobytes())

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
        elif code is not None:
            failure = JobError(code, "the GPU or its driver failed; the render process is replaced")
        raise failure

    def _out_of_memory(self, refused: int) -> str:
        """What did not fit, and what would have."""
        params = self._job.params if self._job else None
        if not self._cuda:
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


def _check_complete(pipe: Any, path: Path) -> None:
    """Text encoders load without the weights a file lacks, and then read memory that nobody wrote."""
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        lacking = [name for name, weight in getattr(pipe, part).named_parameters() if weight.is_meta]
        if lacking:
            raise JobError(
                ErrorCode.MODEL_INVALID,
                f"the checkpoint {path} lacks {len(lacking)} weights of its {part}, such as {lacking[0]}",
            )


def _device_dtype() -> torch.dtype:
    """bfloat16 needs no upcast of SDXL's VAE; GPUs older than Ampere only emulate it."""
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def _unscaled(latents: torch.Tensor, vae: Any) -> torch.Tensor:
    """Latents as the VAE expects them, with the mean and deviation that some checkpoints carry."""
    latents, scale = latents.to(vae.dtype), float(vae.config.scaling_factor)
    mean, deviation = vae.config.get("latents_mean"), vae.config.get("latents_std")
    if mean is None or deviation is None:
        return latents / scale
    shape = (1, -1, 1, 1)
    return latents * latents.new_tensor(deviation).view(shape) / scale + latents.new_tensor(mean).view(shape)


def _silence_libraries() -> None:
    """Their handlers print bars and plain text between our lines, and diffusers' warnings quote the prompt."""
    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.set_verbosity_error()
        library.disable_default_handler()
        library.enable_propagation()
        library.disable_progress_bar()
