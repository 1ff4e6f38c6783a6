"""torch.compile as the plan asks for it, and its kernels kept between processes.

A failing compiler costs speed, never a picture: the engine goes on eagerly, and says so.
"""

from typing import Any

import diffusers
import pynvml
import torch
from torch._dynamo import config as dynamo_config
from torch._dynamo.exc import TorchDynamoException
from torch._dynamo.utils import counters
from torch.compiler._cache import CacheArtifactManager

from dreamforge.events import Level
from dreamforge_runner.backends.base import Notice
from dreamforge_runner.backends.sdxl.compile_cache import CompileCache, Ignored
from dreamforge_runner.backends.sdxl.plan import Compile, Device, Plan

#: What a failing compiler raises, also for the tools behind it (a missing C compiler, a full disk).
FAILURES = (TorchDynamoException,)
#: One function is compiled for each width of the UNet, each bucket, with and without guidance, alone and in batches.
_SHAPES = 64


def facts(device: Device, plan: Plan) -> dict[str, object]:
    """What compiled kernels depend on. torch checks the model's code itself."""
    return {
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "cuda": torch.version.cuda,
        "driver": _driver() if device.cuda else None,
        "device": device.name,
        "capability": device.capability,
        "plan": plan.facts(),
    }


def prepare(pipe: Any, plan: Plan) -> None:
    """Mark what will be compiled at its first call; shapes are static."""
    dynamo_config.recompile_limit = max(dynamo_config.recompile_limit, _SHAPES)
    # Which kernel attention prefers is a switch around the call, at which torch's caches don't look.
    torch.compiler.config.cache_key_tag = plan.attention.value
    if plan.compile is Compile.REGIONAL:
        pipe.unet.compile_repeated_blocks(fullgraph=True, dynamic=False)
    elif plan.compile is Compile.FULL:
        pipe.unet.compile(fullgraph=True, dynamic=False)
        pipe.vae.decoder.compile(fullgraph=True, dynamic=False)


def stance(*, compiled: bool) -> None:
    """Whether the calls that follow, on any thread, may run compiled: eager ones never meet a new shape."""
    torch.compiler.set_stance("default" if compiled else "force_eager")


def compilations() -> int:
    """How often this process compiled something that no cache had."""
    return int(counters["inductor"]["fxgraph_cache_miss"])


def kernels() -> int:
    """How many compiled functions this process has, from a cache or not."""
    return compilations() + int(counters["inductor"]["fxgraph_cache_hit"])


def restore(cache: CompileCache) -> tuple[bool, list[Notice]]:
    """Give torch the kernels of an earlier process, if there are; a file that must not be used is named and left."""
    try:
        parts = cache.read()
    except Ignored as why:
        return False, [_ignored(cache, str(why))]
    for part in parts:
        if (why_not := _load(part)) is not None:
            cache.refuse(parts)
            return False, [_ignored(cache, why_not)]
    return bool(parts), []


def _load(part: bytes) -> str | None:
    """Why torch does not take it."""
    try:
        taken = torch.compiler.load_cache_artifacts(part)
    except Exception as error:  # noqa: BLE001 - torch reads an old or foreign format: anything may come of it
        return f"torch can't read it ({type(error).__name__})"
    return "torch can't read it" if taken is None else None


def keep(cache: CompileCache) -> list[Notice]:
    """Write down what this process used since the last time, beside what is there."""
    try:
        if (saved := torch.compiler.save_cache_artifacts()) is not None:
            cache.add(saved[0])
            # Else each part would repeat those before it, of which torch reads the last only.
            CacheArtifactManager.clear()
    except OSError as error:
        return [Notice("compile.cache_not_kept", f"Compiled kernels could not be kept: {error.strerror}")]
    return []


def failed(error: BaseException) -> Notice:
    """The notice that pictures are made without compiled kernels. The error's own text may hold a prompt."""
    message = f"The compiler failed ({type(error).__name__}); images are rendered without compiled kernels."
    return Notice("compile.failed", message, Level.WARNING)


def _ignored(cache: CompileCache, why: str) -> Notice:
    message = f"The compiled kernels in {cache.path.name} are ignored: {why}."
    return Notice("compile.cache_ignored", message, Level.WARNING)


def _driver() -> str:
    try:
        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return "unknown"
