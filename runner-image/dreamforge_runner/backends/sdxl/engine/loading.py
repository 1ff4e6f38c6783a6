"""From a checkpoint file to a pipeline on the device, laid out as the plan says."""

from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from dreamforge.checkpoints import converted
from dreamforge.errors import ErrorCode, JobError
from dreamforge_runner.backends.sdxl.plan import CPU, Device, Number, Plan, gpu_class


def device(plan: str | None = None) -> Device:
    """What torch renders on: the first CUDA device it sees, else the CPU.

    Raises ``JobError`` where a GPU is there and CUDA can't be started, of which torch says nothing: the CPU takes
    minutes for what was counted in seconds. Whoever asks for the CPU's ``plan`` by name gets it.
    """
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        return Device(torch.cuda.get_device_name(), (major, minor))
    # The count is NVML's, less what CUDA_VISIBLE_DEVICES hides: it needs a driver, but no CUDA.
    if plan != gpu_class(CPU) and torch.cuda.device_count() > 0:
        raise JobError(
            ErrorCode.GPU_FAULT,
            "there is a GPU, but CUDA can't be started: is its driver too old, or the card lost? "
            "DF_SDXL_PLAN=cpu renders without it",
        )
    return CPU


def number(kind: Number) -> torch.dtype:
    """torch's own object for a number type."""
    found = getattr(torch, kind.value)
    assert isinstance(found, torch.dtype)  # noqa: S101 - narrows the type; the names are torch's
    return found


def build(path: Path, config: Path, plan: Plan, where: str) -> Any:
    """The pipeline. Raises ``JobError`` for an incomplete file, else what the libraries raise."""
    pipe = from_checkpoint(path, config, plan.dtype)
    place(pipe, plan, where)
    return pipe


def build_converted(folder: Path, config: Path, plan: Plan, where: str) -> Any:
    """The same pipeline from a model's converted files. Raises what the libraries raise."""
    pipe = from_converted(folder, config)
    place(pipe, plan, where)
    return pipe


def from_checkpoint(path: Path, config: Path, kind: Number) -> Any:
    """The pipeline in host memory, its weights renamed and cast."""
    pipe = StableDiffusionXLPipeline.from_single_file(
        str(path), config=str(config), local_files_only=True, add_watermarker=False, torch_dtype=number(kind)
    )
    _check_complete(pipe, path)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def from_converted(folder: Path, config: Path) -> Any:
    """The pipeline in host memory; its weights are views of the files of the model's ``folder``, read when used."""
    parts = {name: _empty(name, config).eval() for name in converted.PARTS}
    for name, part in parts.items():
        weights = load_file(folder / converted.path_of(name))
        if other := sorted(weights.keys() ^ part.state_dict().keys()):
            raise JobError(
                ErrorCode.MODEL_INVALID,
                f"these versions of the libraries know another {name}: {len(other)} names, such as {other[0]}",
            )
        part.load_state_dict(weights, strict=True, assign=True)
    make: Any = StableDiffusionXLPipeline.from_pretrained  # it has no types
    pipe = make(config, **parts, local_files_only=True, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _empty(name: str, config: Path) -> Any:
    """A part of the pipeline without memory for its weights."""
    text_encoders: dict[str, Any] = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}
    networks: dict[str, Any] = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}
    with init_empty_weights():
        if name in text_encoders:
            kind = text_encoders[name]
            return kind(kind.config_class.from_pretrained(config, subfolder=name, local_files_only=True))
        return networks[name].from_config(networks[name].load_config(config / name))


def place(pipe: Any, plan: Plan, where: str) -> None:
    """Bring a pipeline's parts to the device ``where``, in the plan's numbers and layout."""
    pipe.to(where)
    pipe.vae.to(number(plan.vae_dtype))
    layout = getattr(torch, plan.memory_format.value)
    pipe.unet.to(memory_format=layout)
    pipe.vae.to(memory_format=layout)
    if where == "cuda":
        torch.cuda.synchronize()  # The decode stream does not wait for the uploads by itself.


def _check_complete(pipe: Any, path: Path) -> None:
    """Text encoders load without the weights a file lacks, and then read memory that nobody wrote."""
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        lacking = [name for name, weight in getattr(pipe, part).named_parameters() if weight.is_meta]
        if lacking:
            raise JobError(
                ErrorCode.MODEL_INVALID,
                f"the checkpoint {path} lacks {len(lacking)} weights of its {part}, such as {lacking[0]}",
            )


def silence_libraries() -> None:
    """Their handlers print bars and plain text between our lines, and diffusers' warnings quote the prompt."""
    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.set_verbosity_error()
        library.disable_default_handler()
        library.enable_propagation()
        library.disable_progress_bar()
