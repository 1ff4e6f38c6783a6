"""From a checkpoint to a file for each of its parts, and the proof that these hold the same numbers."""

import errno
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import save_file

from dreamforge.checkpoints import converted
from dreamforge.errors import ErrorCode, JobError
from dreamforge_runner.backends.sdxl.engine import loading
from dreamforge_runner.backends.sdxl.plan import Number
from dreamforge_runner.backends.sdxl.plan_settings import PlanSettings

#: Whose names the weights have.
LIBRARIES = {"diffusers": diffusers.__version__, "transformers": transformers.__version__}


def planned(settings: PlanSettings) -> Number:
    """The number type in which a runner with these settings, on this machine, would load."""
    return settings.choose(loading.device(settings.sdxl_plan)).dtype


def write(checkpoint: Path, config: Path, kind: Number, folder: Path) -> None:
    """Write the parts below ``folder``, read them again as a runner does, and compare every bit.

    Raises ``JobError`` where they differ or the checkpoint is not complete, else what the libraries raise.
    """
    loading.silence_libraries()
    pipe = loading.from_checkpoint(checkpoint, config, kind)
    for name in converted.PARTS:
        path = folder / converted.path_of(name)
        path.parent.mkdir(exist_ok=True)
        weights = {key: weight.contiguous() for key, weight in getattr(pipe, name).state_dict().items()}
        _save(weights, path)
    again = loading.from_converted(folder, config)
    for name in converted.PARTS:
        if (found := difference(getattr(pipe, name), getattr(again, name))) is not None:
            raise JobError(
                ErrorCode.INTERNAL, f"the converted {name} does not hold what the checkpoint holds: {found}"
            )


def _save(weights: dict[str, torch.Tensor], path: Path) -> None:
    try:
        save_file(weights, path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(errno.EIO, str(error), str(path)) from None


def difference(one: Any, other: Any) -> str | None:
    """The name of the first weight or buffer in which two networks differ, be it by one bit."""
    tensors, others = (dict[str, torch.Tensor]([*it.named_parameters(), *it.named_buffers()]) for it in (one, other))
    names: list[str] = sorted(tensors.keys() | others.keys())
    for name in names:
        if name not in tensors or name not in others or not _same(tensors[name], others[name]):
            return name
    return None


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Bits and not numbers: one that is not a number equals itself."""
    if one.dtype != other.dtype or one.shape != other.shape or one.device != other.device:
        return False
    pairs = (it.detach().contiguous().flatten().view(torch.uint8) for it in (one, other))
    return torch.equal(*pairs)
