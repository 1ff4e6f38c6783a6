"""The SDXL backend by plan, the tiny checkpoint in it, and how far two of its pictures are apart."""

import math
from typing import Any

from dreamforge.spec import RenderParams
from dreamforge_runner.backends.base import Pixels
from dreamforge_runner.backends.sdxl import SdxlBackend
from dreamforge_runner.backends.sdxl.plan_settings import PlanSettings
from dreamforge_runner.backends.sdxl.settings import SdxlSettings
from tests import tiny_sdxl
from tests.golden import renders

#: Two pictures of one seed, batched and alone: the order of sums may differ, nothing a person sees.
SAME_PICTURE_DB = 45.0


def made(**plan: Any) -> SdxlBackend:
    """A backend that has the tiny checkpoint."""
    backend = SdxlBackend(SdxlSettings(hash_cache_path=None), PlanSettings(sdxl_compile_cache_path=None, **plan))
    import torch  # noqa: PLC0415 - after the backend set the libraries' environment

    torch.set_num_threads(1)
    backend.load(renders.model(tiny_sdxl.cached()))
    return backend


def params(**changes: Any) -> RenderParams:
    """A small picture in few steps."""
    return RenderParams.model_validate({"prompt": "a red fox", "width": 256, "height": 256, "steps": 3, **changes})


def alone(backend: SdxlBackend, seed: int, **changes: Any) -> Pixels:
    """One item by itself."""
    return renders.render(backend, params(**changes), seed)


def decibels(one: Pixels, other: Pixels) -> float:
    """Peak signal-to-noise ratio of two pictures; infinite when they are equal."""
    assert (one.width, one.height) == (other.width, other.height)
    error = sum((a - b) ** 2 for a, b in zip(one.rgb, other.rgb, strict=True)) / len(one.rgb)
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)
