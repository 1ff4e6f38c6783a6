"""The hot loop: from seeds to latents, with nothing in it that waits for the device but the pace.

It is diffusers' own loop for SDXL without what a runner does not use; a test holds both to the same pixels.
"""

import math
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from dreamforge.spec import RenderParams
from dreamforge_runner.backends.base import Item, OnStep, RenderCanceled
from dreamforge_runner.backends.sdxl.engine.samplers import Noise, Sampler
from dreamforge_runner.backends.sdxl.plan import Attention, Plan, Speed

#: Steps the host may be ahead of the device: enough that the device never waits for the next, few enough that a
#: cancel and the told progress are about now.
_AHEAD = 2
_LATENT_PIXELS = 8
_KERNELS = {
    Attention.FLASH: SDPBackend.FLASH_ATTENTION,
    Attention.CUDNN: SDPBackend.CUDNN_ATTENTION,
    Attention.EFFICIENT: SDPBackend.EFFICIENT_ATTENTION,
    Attention.MATH: SDPBackend.MATH,
}


@dataclass(frozen=True)
class Latents:
    """A denoised item; on CUDA ``ready`` fires when its kernels are done."""

    tensor: torch.Tensor
    ready: torch.cuda.Event | None
    #: How it was made, for its metadata.
    plan: Plan


@dataclass(frozen=True)
class Conditions:
    """What steers every item of a job; with guidance the first row is the negative prompt's."""

    guided: bool
    prompt: torch.Tensor
    pooled: torch.Tensor
    time_ids: torch.Tensor

    def rows(self, items: int, *, guided: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """For ``items`` denoised together: all negatives first, then all positives."""
        first = 0 if guided or not self.guided else 1
        prompt, pooled, time_ids = (
            rows[first:].repeat_interleave(items, dim=0) for rows in (self.prompt, self.pooled, self.time_ids)
        )
        return prompt, {"text_embeds": pooled, "time_ids": time_ids}


def encode(pipe: Any, params: RenderParams, where: str) -> Conditions:
    """Run the text encoders, once for a job."""
    guided = params.guidance > 1
    negative = (params.negative_prompt or None) if guided else None
    with torch.no_grad():
        positive, minus, pooled, minus_pooled = pipe.encode_prompt(
            prompt=params.prompt, negative_prompt=negative, do_classifier_free_guidance=guided
        )
    size = (params.height, params.width)
    time_ids = torch.tensor([[*size, 0, 0, *size]], dtype=positive.dtype).to(where)
    if not guided:
        return Conditions(False, positive, pooled, time_ids)
    pair = torch.cat([minus, positive]), torch.cat([minus_pooled, pooled]), time_ids.repeat(2, 1)
    return Conditions(True, *pair)


class Denoiser:
    """One job's loop."""

    def __init__(self, unet: Any, sampler: Sampler, conditions: Conditions, params: RenderParams, plan: Plan) -> None:
        self._unet = unet
        self._sampler = sampler
        self._conditions = conditions
        self._params = params
        # What the request says of guidance counts, and stands in the image's metadata by its own name.
        self.plan = plan if params.guidance_cutoff is None else replace(plan, speed=Speed.NONE)
        self._where = unet.device.type
        share = self.plan.speed.guided_share if params.guidance_cutoff is None else params.guidance_cutoff
        self._guided_steps = math.ceil(share * params.steps) if conditions.guided else 0

    def run(self, items: Sequence[Item], on_step: OnStep) -> list[Latents]:
        """Denoise ``items`` together, each from its own seed; raises ``RenderCanceled``."""
        with torch.no_grad(), _attention(self.plan.attention):
            tensor = self._loop(items, on_step)
        ready = torch.cuda.current_stream().record_event() if self._where == "cuda" else None
        used = replace(self.plan, micro_batch=len(items))
        return [Latents(row, ready, used) for row in torch.split(tensor, 1)]

    def _loop(self, items: Sequence[Item], on_step: OnStep) -> torch.Tensor:
        sampler, pace = self._sampler, _Pace(on_cuda=self._where == "cuda")
        shape = (
            int(self._unet.config.in_channels),
            self._params.height // _LATENT_PIXELS,
            self._params.width // _LATENT_PIXELS,
        )
        noise = Noise([item.seed for item in items], shape, self._where)
        sampler.restart()
        latents = sampler.begin(noise, self._unet.dtype)
        guided = self._guided_steps > 0
        prompt, added = self._conditions.rows(len(items), guided=guided)
        for index in range(len(sampler)):
            if guided and index == self._guided_steps:
                guided = False
                prompt, added = self._conditions.rows(len(items), guided=False)
            predicted = self._predict(latents, index, prompt, added, guided=guided)
            latents = sampler.step(predicted, index, latents, noise)
            pace.wait()
            # Raising leaves the loop at once and needs no private switch of a pipeline.
            if not on_step(index + 1):
                raise RenderCanceled(f"items {[item.index for item in items]} stopped after {index + 1} steps")
        return latents

    def _predict(
        self,
        latents: torch.Tensor,
        index: int,
        prompt: torch.Tensor,
        added: dict[str, torch.Tensor],
        *,
        guided: bool,
    ) -> torch.Tensor:
        rows = self._sampler.scaled(torch.cat([latents] * 2) if guided else latents, index)
        timestep = self._sampler.timesteps[index]
        predicted: torch.Tensor = self._unet(
            rows, timestep, encoder_hidden_states=prompt, added_cond_kwargs=added, return_dict=False
        )[0]
        if not guided:
            return predicted
        plain, prompted = predicted.chunk(2)
        return plain + self._params.guidance * (prompted - plain)


class _Pace:
    """Lets the host be ``_AHEAD`` steps ahead of the device and no more; the device never waits for it."""

    def __init__(self, *, on_cuda: bool) -> None:
        self._on_cuda = on_cuda
        self._done: deque[torch.cuda.Event] = deque()

    def wait(self) -> None:
        """After a step's kernels are queued."""
        if not self._on_cuda:
            return
        # Sleeps instead of spinning: encoding needs the core.
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # torch: untyped
        event.record()
        self._done.append(event)
        if len(self._done) > _AHEAD:
            self._done.popleft().synchronize()


def _attention(wanted: Attention) -> AbstractContextManager[None]:
    """Prefer a kernel, and allow what runs anywhere: torch's switches hold for the whole process, so for the VAE
    that decodes meanwhile too, whose one wide head (512) not every kernel can do."""
    if wanted is Attention.AUTO:
        return nullcontext()
    return sdpa_kernel([_KERNELS[wanted], SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH], set_priority=True)
