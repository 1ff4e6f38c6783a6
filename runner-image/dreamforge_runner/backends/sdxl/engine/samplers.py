"""diffusers' schedulers, fed so that no step waits for the device.

Timesteps and sigmas stay on the host: a scheduler that looks one up never asks the device. Noise is drawn on the
host from each item's own generator, so that a seed means the same on every card, and travels without a wait.
``unipc`` still solves a small system on the device and looks at its result, twice a step: diffusers' own way.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import diffusers
import torch

from dreamforge.spec import Scheduler
from dreamforge_runner.backends.sdxl.schedulers import RECIPES


class Noise:
    """Standard normal numbers for the rows of a batch, each row from its item's seed."""

    def __init__(self, seeds: Sequence[int], shape: tuple[int, int, int], where: str) -> None:
        self._generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        self._shape = (1, *shape)
        self._where = where

    def draw(self) -> torch.Tensor:
        """The next numbers, always as float32: a bfloat16 card must draw what a float32 one does."""
        rows = torch.cat([torch.randn(self._shape, generator=generator) for generator in self._generators])
        if self._where == "cpu":
            return rows
        return rows.pin_memory().to(self._where, non_blocking=True)


class Sampler:
    """One job's scheduler; :meth:`restart` before each batch of items."""

    def __init__(self, wanted: Scheduler, checkpoint_config: Mapping[str, Any], steps: int, where: str) -> None:
        recipe = RECIPES[wanted]
        made = getattr(diffusers, recipe.class_name).from_config(checkpoint_config, **recipe.overrides)
        self._steps = steps
        self._ancestral = wanted is Scheduler.EULER_A
        self.scheduler: Any = made
        self.restart()
        #: For the UNet, uploaded once; the scheduler reads its own copy on the host.
        self.timesteps = made.timesteps.to(where)

    def restart(self) -> None:
        """Forget the batch before: multi-step schedulers keep its predictions."""
        self.scheduler.set_timesteps(self._steps, device="cpu")
        if hasattr(self.scheduler, "set_begin_index"):  # DDIM has none
            self.scheduler.set_begin_index(0)

    def __len__(self) -> int:
        return len(self.timesteps)

    def begin(self, noise: Noise, dtype: torch.dtype) -> torch.Tensor:
        """Where denoising starts."""
        begun: torch.Tensor = noise.draw().to(dtype) * self.scheduler.init_noise_sigma
        return begun

    def scaled(self, latents: torch.Tensor, index: int) -> torch.Tensor:
        """The UNet's input at step ``index``."""
        if self._ancestral:  # the scheduler itself takes no step, so it would scale by its first sigma for ever
            scaled: torch.Tensor = latents / ((self.scheduler.sigmas[index] ** 2 + 1) ** 0.5)
            return scaled
        rows: torch.Tensor = self.scheduler.scale_model_input(latents, self.scheduler.timesteps[index])
        return rows

    def step(self, predicted: torch.Tensor, index: int, latents: torch.Tensor, noise: Noise) -> torch.Tensor:
        """One step closer to the picture."""
        if self._ancestral:
            return self._ancestral_step(predicted, index, latents, noise)
        timestep = self.scheduler.timesteps[index]
        closer: torch.Tensor = self.scheduler.step(predicted, timestep, latents, return_dict=False)[0]
        return closer

    def _ancestral_step(
        self, predicted: torch.Tensor, index: int, latents: torch.Tensor, noise: Noise
    ) -> torch.Tensor:
        """As ``EulerAncestralDiscreteScheduler.step``, whose own noise would make each step wait for the device."""
        sigma, target = self.scheduler.sigmas[index], self.scheduler.sigmas[index + 1]
        up = (target**2 * (sigma**2 - target**2) / sigma**2) ** 0.5
        down = (target**2 - up**2) ** 0.5
        sample = latents.to(torch.float32)
        if self.scheduler.config.prediction_type == "v_prediction":
            original = predicted * (-sigma / (sigma**2 + 1) ** 0.5) + (sample / (sigma**2 + 1))
        else:
            original = sample - sigma * predicted
        derivative = (sample - original) / sigma
        closer = sample + derivative * (down - sigma)
        noisy: torch.Tensor = closer + noise.draw().to(predicted.dtype) * up
        return noisy.to(predicted.dtype)
