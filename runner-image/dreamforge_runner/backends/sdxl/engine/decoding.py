"""Latents to pixels, on a helper thread and a CUDA stream of its own, beside the next item's denoising."""

import copy
from dataclasses import replace
from typing import Any

import torch

from dreamforge.errors import ErrorCode, JobError
from dreamforge.events import Level
from dreamforge_runner.backends.base import Notice, Pixels
from dreamforge_runner.backends.sdxl.engine.denoising import Latents
from dreamforge_runner.backends.sdxl.plan import Number


class Decoder:
    """The VAE of a loaded pipeline. It touches nothing else, so it may run beside the denoiser."""

    def __init__(self, vae: Any) -> None:
        self._vae = vae
        on_cuda = vae.device.type == "cuda"
        self._stream = torch.cuda.Stream() if on_cuda else None  # type: ignore[no-untyped-call]  # torch: untyped

    def run(self, latents: Latents) -> Pixels:
        """Pixels; in float32 where the plan's smaller numbers overflow, which metadata and notice say."""
        # stream(None) does nothing, so the CPU takes the same path.
        with torch.no_grad(), torch.cuda.stream(self._stream):
            if self._stream is not None and latents.ready is not None:
                self._stream.wait_event(latents.ready)
                latents.tensor.record_stream(self._stream)
            rgb, finite = _picture(self._vae, latents.tensor)
            if finite:
                return _pixels(rgb, latents.plan.label)
            if self._vae.dtype is not torch.float32:
                # A copy: the plan's own VAE is compiled, and the next picture may well fit its numbers.
                rgb, finite = _picture(copy.deepcopy(self._vae).to(torch.float32), latents.tensor)
        if not finite:
            raise JobError(ErrorCode.MODEL_INVALID, "the model gave pixels that are not numbers; is it damaged?")
        return _pixels(rgb, replace(latents.plan, vae_dtype=Number.FLOAT32).label, _overflow(latents))


def _picture(vae: Any, latents: torch.Tensor) -> tuple[torch.Tensor, bool]:
    """8-bit rows from the top, and whether all numbers were finite."""
    image = vae.decode(_unscaled(latents, vae), return_dict=False)[0][0].float()
    finite = torch.isfinite(image).all()
    rgb = image.mul(0.5).add(0.5).clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0)
    return rgb.contiguous().cpu(), bool(finite)


def _pixels(rgb: torch.Tensor, plan: str, notice: Notice | None = None) -> Pixels:
    height, width, _ = rgb.shape
    return Pixels(width, height, rgb.numpy().tobytes(), plan, notice)


def _overflow(latents: Latents) -> Notice:
    number = latents.plan.vae_dtype
    message = f"The VAE overflowed in {number}; this image was decoded again in float32."
    return Notice("vae.overflow", message, Level.WARNING)


def _unscaled(latents: torch.Tensor, vae: Any) -> torch.Tensor:
    """Latents as the VAE expects them, with the mean and deviation that some checkpoints carry."""
    latents, scale = latents.to(vae.dtype), float(vae.config.scaling_factor)
    mean, deviation = vae.config.get("latents_mean"), vae.config.get("latents_std")
    if mean is None or deviation is None:
        return latents / scale
    shape = (1, -1, 1, 1)
    return latents * latents.new_tensor(deviation).view(shape) / scale + latents.new_tensor(mean).view(shape)
