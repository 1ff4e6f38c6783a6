"""Is this file an SDXL checkpoint we may load? Answered from the header alone, before any library sees it.

Everything that is wrong with a model on disk becomes a :class:`~dreamforge.errors.JobError`: ``model_missing``
when something is not where it should be, ``model_invalid`` when it can't be what was asked for.
"""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dreamforge.checkpoints import digest, header
from dreamforge.checkpoints.header import HeaderError, Tensor
from dreamforge.checkpoints.refusals import invalid, missing
from dreamforge.spec import ModelRef

#: Copying programs may turn pages of zeros into holes; a checkpoint has next to none.
_MOST_UNWRITTEN_BYTES = 2**20
_UNET = "model.diffusion_model."
_UNET_INPUT = f"{_UNET}input_blocks.0.0.weight"
#: What makes a file an SDXL base checkpoint: prefix of its tensors, and what a person calls that part.
_PARTS = {
    _UNET: "the UNet",
    f"{_UNET}label_emb.": "the UNet's size conditioning",
    "conditioner.embedders.0.transformer.": "the first text encoder (CLIP-L)",
    "conditioner.embedders.1.model.": "the second text encoder (OpenCLIP bigG)",
    "first_stage_model.decoder.": "the VAE",
}
#: Signs of other things people have on disk, most telling first: a prefix, or (starting with "*") a part of a name.
_LOOKALIKES = {
    "*lora_": "a LoRA",
    "*.lora.": "a LoRA",
    "*hada_w1": "a LoRA (LoHa)",
    "cond_stage_model.transformer.": "a Stable Diffusion 1.x checkpoint",
    "cond_stage_model.model.": "a Stable Diffusion 2.x checkpoint",
    "conditioner.embedders.0.model.": "an SDXL refiner",
    "control_model.": "a ControlNet",
    "*controlnet_": "a ControlNet",
    "*joint_blocks.": "a Stable Diffusion 3 checkpoint",
    "*double_blocks.": "a Flux checkpoint",
    "down_blocks.": "a UNet in diffusers format (one part of a model folder)",
    "text_model.": "a text encoder alone",
    "encoder.down": "a VAE alone",
    "emb_params": "a textual inversion embedding",
    "clip_l": "a textual inversion embedding",
}


@dataclass(frozen=True)
class CheckpointInfo:
    """An SDXL checkpoint whose header passed every check."""

    path: Path
    size_bytes: int
    tensor_count: int


def inspect(path: Path) -> CheckpointInfo:
    """Check that ``path`` is an SDXL base checkpoint in ``.safetensors`` form."""
    size = _size_of(path)
    if path.suffix.lower() != ".safetensors":
        raise invalid(f"only .safetensors checkpoints are loaded; {path} is not one")
    try:
        with path.open("rb") as file:
            tensors = header.read(file, size)
            _check_written(path, file, size)
    except HeaderError as error:
        raise invalid(f"the checkpoint {path} {error}") from None
    except OSError as error:
        raise missing(f"the checkpoint {path} can't be read: {error.strerror}") from None
    _check_architecture(path, tensors)
    return CheckpointInfo(path=path, size_bytes=size, tensor_count=len(tensors))


def verify(model: ModelRef, info: CheckpointInfo, *memories: Path | None) -> str:
    """The file's sha256, after comparing it and the size with what the registry recorded, where it did."""
    if model.size_bytes is not None and model.size_bytes != info.size_bytes:
        raise invalid(f"the checkpoint {info.path} has {info.size_bytes} bytes; {model.size_bytes} were registered")
    found = digest.sha256(info.path, *memories)
    if model.sha256 is not None and found != model.sha256.lower():
        raise invalid(f"the sha256 of the checkpoint {info.path} is not the registered one")
    return found


def _size_of(path: Path) -> int:
    try:
        status = path.stat()
    except FileNotFoundError:
        raise missing(f"there is no checkpoint at {path}") from None
    except (OSError, ValueError) as error:
        raise missing(f"the checkpoint {path} can't be reached: {error}") from None
    if not stat.S_ISREG(status.st_mode):
        raise invalid(f"{path} is not a file")
    return status.st_size


def _check_written(path: Path, file: BinaryIO, size: int) -> None:
    """Programs that download in pieces make the file whole at once and fill it later; what they left out is holes."""
    unwritten = position = 0
    try:
        while unwritten < _MOST_UNWRITTEN_BYTES and (hole := os.lseek(file.fileno(), position, os.SEEK_HOLE)) < size:
            try:
                position = os.lseek(file.fileno(), hole, os.SEEK_DATA)
            except OSError:
                position = size  # a hole up to the end
            unwritten += position - hole
    except OSError:
        return  # this file system can't tell
    if unwritten >= _MOST_UNWRITTEN_BYTES:
        raise invalid(f"the checkpoint {path} has gaps that were never written: a download that did not end?")


def _check_architecture(path: Path, tensors: Mapping[str, Tensor]) -> None:
    lacking = [what for prefix, what in _PARTS.items() if not any(name.startswith(prefix) for name in tensors)]
    if lacking:
        lookalike = _lookalike(tensors)
        guess = f"; it looks like {lookalike}" if lookalike else ""
        raise invalid(f"{path} is not an SDXL checkpoint: it lacks {', '.join(lacking)}{guess}")
    unet_input = tensors.get(_UNET_INPUT)
    if unet_input is None or len(unet_input.shape) != 4:
        raise invalid(f"{path} is not an SDXL checkpoint: the UNet's first convolution is missing or misshapen")
    if unet_input.shape[1] != 4:
        raise invalid(
            f"{path} takes {unet_input.shape[1]} latent channels instead of 4; it looks like an inpainting checkpoint"
        )


def _lookalike(tensors: Mapping[str, Tensor]) -> str | None:
    for sign, what in _LOOKALIKES.items():
        if any(sign[1:] in name if sign.startswith("*") else name.startswith(sign) for name in tensors):
            return what
    return None
