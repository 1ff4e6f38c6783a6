"""Is this file an SDXL checkpoint we may load? Asked before torch is imported, answered from the header alone.

Everything that is wrong with a model on disk becomes a :class:`~dreamforge.errors.JobError` here:
``model_missing`` when something is not where it should be, ``model_invalid`` when it can't be what was asked for.
"""

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamforge.errors import ErrorCode, JobError
from dreamforge.spec import ModelRef
from dreamforge_runner import safetensors_header
from dreamforge_runner.safetensors_header import HeaderError, Tensor

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
#: Loading imports what ``model_index.json`` names, so only the classes of an SDXL pipeline may stand there.
_COMPONENTS = {
    "text_encoder": ("transformers", {"CLIPTextModel"}),
    "text_encoder_2": ("transformers", {"CLIPTextModelWithProjection"}),
    "tokenizer": ("transformers", {"CLIPTokenizer", "CLIPTokenizerFast"}),
    "tokenizer_2": ("transformers", {"CLIPTokenizer", "CLIPTokenizerFast"}),
    "unet": ("diffusers", {"UNet2DConditionModel"}),
    "vae": ("diffusers", {"AutoencoderKL"}),
    # Only its settings are used; a request names the class.
    "scheduler": ("diffusers", {
        "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "DPMSolverMultistepScheduler", "DDIMScheduler",
        "UniPCMultistepScheduler", "PNDMScheduler", "DPMSolverSDEScheduler", "DPMSolverSinglestepScheduler",
        "HeunDiscreteScheduler", "LMSDiscreteScheduler", "LCMScheduler", "DDPMScheduler",
    }),
}  # fmt: skip
_PIPELINE = "StableDiffusionXLPipeline"
#: What each part needs, any one of these sets: the libraries replace a missing tokenizer by an empty one, silently.
_CONFIG_FILES = {
    **{part: [{"config.json"}] for part in ("unet", "vae", "text_encoder", "text_encoder_2")},
    **{part: [{"tokenizer.json"}, {"vocab.json", "merges.txt"}] for part in ("tokenizer", "tokenizer_2")},
    "scheduler": [{"scheduler_config.json"}],
}
_HASH_CHUNK_BYTES = 4 * 2**20


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
        raise _invalid(f"only .safetensors checkpoints are loaded; {path} is not one")
    try:
        with path.open("rb") as file:
            tensors = safetensors_header.read(file, size)
    except HeaderError as error:
        raise _invalid(f"the checkpoint {path} {error}") from None
    except OSError as error:
        raise _missing(f"the checkpoint {path} can't be read: {error.strerror}") from None
    _check_architecture(path, tensors)
    return CheckpointInfo(path=path, size_bytes=size, tensor_count=len(tensors))


def verify(model: ModelRef, info: CheckpointInfo, hash_cache: Path | None = None) -> None:
    """Compare the file with the size and the sha256 that the registry recorded, where it did."""
    if model.size_bytes is not None and model.size_bytes != info.size_bytes:
        raise _invalid(f"the checkpoint {info.path} has {info.size_bytes} bytes; {model.size_bytes} were registered")
    if model.sha256 is not None and sha256(info.path, hash_cache) != model.sha256.lower():
        raise _invalid(f"the sha256 of the checkpoint {info.path} is not the registered one")


def find_config(path: Path, explicit: Path | None = None) -> Path:
    """The folder with the pipeline's configuration and tokenizers (``model_index.json``) for a checkpoint.

    ``explicit`` is the setting, and then the only place looked at. Else it stands beside the checkpoint.
    """
    beside = [path.with_suffix(""), path.with_suffix(".config"), path.parent / "config"]
    looked_at = beside if explicit is None else [explicit]
    for folder in looked_at:
        if (folder / "model_index.json").is_file():
            _check_config(folder)
            return folder
    places = ", ".join(str(folder) for folder in looked_at)
    raise _missing(
        f"no folder with model_index.json (SDXL's configuration and tokenizers) for {path.name}; looked at: {places}"
    )


def sha256(path: Path, cache: Path | None = None) -> str:
    """Hex sha256 of the file; ``cache`` is a folder that remembers it while inode, size and mtime stay the same."""
    try:
        with path.open("rb") as file:
            entry = None if cache is None else cache / _cache_name(os.fstat(file.fileno()))
            if entry is not None and (known := _cached(entry)):
                return known
            digest = hashlib.sha256()
            while chunk := file.read(_HASH_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise _missing(f"the checkpoint {path} can't be read: {error.strerror}") from None
    if entry is not None:
        _remember(entry, digest.hexdigest())
    return digest.hexdigest()


def _size_of(path: Path) -> int:
    try:
        status = path.stat()
    except FileNotFoundError:
        raise _missing(f"there is no checkpoint at {path}") from None
    except (OSError, ValueError) as error:
        raise _missing(f"the checkpoint {path} can't be reached: {error}") from None
    if not stat.S_ISREG(status.st_mode):
        raise _invalid(f"{path} is not a file")
    return status.st_size


def _check_architecture(path: Path, tensors: Mapping[str, Tensor]) -> None:
    missing = [what for prefix, what in _PARTS.items() if not any(name.startswith(prefix) for name in tensors)]
    if missing:
        lookalike = _lookalike(tensors)
        guess = f"; it looks like {lookalike}" if lookalike else ""
        raise _invalid(f"{path} is not an SDXL checkpoint: it lacks {', '.join(missing)}{guess}")
    unet_input = tensors.get(_UNET_INPUT)
    if unet_input is None or len(unet_input.shape) != 4:
        raise _invalid(f"{path} is not an SDXL checkpoint: the UNet's first convolution is missing or misshapen")
    if unet_input.shape[1] != 4:
        raise _invalid(
            f"{path} takes {unet_input.shape[1]} latent channels instead of 4; it looks like an inpainting checkpoint"
        )


def _lookalike(tensors: Mapping[str, Tensor]) -> str | None:
    for sign, what in _LOOKALIKES.items():
        if any(sign[1:] in name if sign.startswith("*") else name.startswith(sign) for name in tensors):
            return what
    return None


def _check_config(folder: Path) -> None:
    index = _read_index(folder / "model_index.json")
    if index.get("_class_name") != _PIPELINE:
        raise _invalid(f"{folder} does not configure a {_PIPELINE}")
    for name, (library, classes) in _COMPONENTS.items():
        match index.get(name):
            case [str(named_library), str(named_class)] if named_library == library and named_class in classes:
                continue
            case _:
                raise _invalid(f"{folder}/model_index.json names an unexpected class for {name}")
    parts = {name for name, value in index.items() if isinstance(value, list) and value != [None, None]}
    if extra := sorted(parts - _COMPONENTS.keys()):
        raise _invalid(f"{folder}/model_index.json names parts that SDXL does not have: {', '.join(extra)}")
    for name, choices in _CONFIG_FILES.items():
        if not any(all((folder / name / file).is_file() for file in files) for files in choices):
            wanted = " or ".join(" and ".join(sorted(files, reverse=True)) for files in choices)
            raise _missing(f"the configuration {folder} is not complete: {name}/ lacks {wanted}")


def _read_index(path: Path) -> dict[str, Any]:
    try:
        index = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise _missing(f"{path} can't be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise _invalid(f"{path} is not valid JSON") from None
    if not isinstance(index, dict):
        raise _invalid(f"{path} is not a JSON object")
    return index


def _cache_name(status: os.stat_result) -> str:
    return f"{status.st_dev}-{status.st_ino}-{status.st_size}-{status.st_mtime_ns}.sha256"


def _cached(entry: Path) -> str | None:
    try:
        known = entry.read_text("ascii")
    except (OSError, ValueError):
        return None
    return known if len(known) == 64 else None


def _remember(entry: Path, digest: str) -> None:
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        draft = entry.with_suffix(f".{os.getpid()}")
        draft.write_text(digest, "ascii")
        draft.replace(entry)
    except OSError:
        return  # The cache saves time; a full or read-only disk must not fail the job.


def _missing(message: str) -> JobError:
    return JobError(ErrorCode.MODEL_MISSING, message)


def _invalid(message: str) -> JobError:
    return JobError(ErrorCode.MODEL_INVALID, message)
