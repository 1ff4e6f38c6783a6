"""How the scheduler names a request may use map to diffusers' classes and their settings."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from dreamforge.spec import Scheduler


class Recipe(NamedTuple):
    """A diffusers class, and what to set on top of the checkpoint's own scheduler configuration."""

    class_name: str
    overrides: Mapping[str, object] = MappingProxyType({})


_DPMPP_2M = {"algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint"}

RECIPES: Mapping[Scheduler, Recipe] = MappingProxyType(
    {
        Scheduler.EULER: Recipe("EulerDiscreteScheduler"),
        Scheduler.EULER_A: Recipe("EulerAncestralDiscreteScheduler"),
        Scheduler.DPMPP_2M: Recipe("DPMSolverMultistepScheduler", {**_DPMPP_2M, "use_karras_sigmas": False}),
        Scheduler.DPMPP_2M_KARRAS: Recipe("DPMSolverMultistepScheduler", {**_DPMPP_2M, "use_karras_sigmas": True}),
        # DDIM clips predicted images to [-1, 1] by default, which is wrong for latents.
        Scheduler.DDIM: Recipe("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False}),
        Scheduler.UNIPC: Recipe("UniPCMultistepScheduler"),
    }
)
