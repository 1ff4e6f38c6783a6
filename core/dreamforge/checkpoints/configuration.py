"""The folder with an SDXL pipeline's configuration and tokenizers, which a single-file checkpoint lacks.

Loading imports what ``model_index.json`` names, so a folder is checked before any library reads it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dreamforge.checkpoints.refusals import invalid, missing

#: The file that names the parts and their classes.
INDEX = "model_index.json"
#: The one that holds the scheduler's settings.
SCHEDULER = "scheduler/scheduler_config.json"
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
_SCHEDULERS = _COMPONENTS["scheduler"][1]
_PIPELINE = "StableDiffusionXLPipeline"
#: What each part needs, any one of these sets: the libraries replace a missing tokenizer by an empty one, silently.
_CONFIG_FILES = {
    **{part: [{"config.json"}] for part in ("unet", "vae", "text_encoder", "text_encoder_2")},
    **{part: [{"tokenizer.json"}, {"vocab.json", "merges.txt"}] for part in ("tokenizer", "tokenizer_2")},
    "scheduler": [{"scheduler_config.json"}],
}


def find(path: Path, explicit: Path | None = None) -> Path:
    """The folder with the pipeline's configuration and tokenizers (``model_index.json``) for a checkpoint.

    ``explicit`` is the setting, and then the only place looked at. Else it stands beside the checkpoint.
    """
    beside = [path.with_suffix(""), path.with_suffix(".config"), path.parent / "config"]
    looked_at = beside if explicit is None else [explicit]
    for folder in looked_at:
        if (folder / INDEX).is_file():
            check(folder)
            return folder
    places = ", ".join(str(folder) for folder in looked_at)
    raise missing(
        f"no folder with model_index.json (SDXL's configuration and tokenizers) for {path.name}; looked at: {places}"
    )


def check(folder: Path) -> None:
    """Raise unless the folder configures an SDXL pipeline, names nothing else, and is complete."""
    _check_index(_read_index(folder / INDEX), folder)
    for name, choices in _CONFIG_FILES.items():
        if not any(all((folder / name / file).is_file() for file in files) for files in choices):
            wanted = " or ".join(" and ".join(sorted(files, reverse=True)) for files in choices)
            raise missing(f"the configuration {folder} is not complete: {name}/ lacks {wanted}")


def unknown_scheduler(folder: Path) -> str | None:
    """The scheduler's class, when nothing else is wrong with the index; raises when something is.

    Only a scheduler's settings are used and a request names the class, so another configuration's serves as well.
    """
    index = _read_index(folder / INDEX)
    match index.get("scheduler"):
        case [str(library), str(name)] if library != "diffusers" or name not in _SCHEDULERS:
            _check_index({**index, "scheduler": ["diffusers", min(_SCHEDULERS)]}, folder)
            return f"{library}.{name}"
    return None


def _check_index(index: Mapping[str, Any], folder: Path) -> None:
    if index.get("_class_name") != _PIPELINE:
        raise invalid(f"{folder} does not configure a {_PIPELINE}")
    for name, (library, classes) in _COMPONENTS.items():
        match index.get(name):
            case [str(named_library), str(named_class)] if named_library == library and named_class in classes:
                continue
            case _:
                raise invalid(f"{folder}/model_index.json names an unexpected class for {name}")
    parts = {name for name, value in index.items() if isinstance(value, list) and value != [None, None]}
    if extra := sorted(parts - _COMPONENTS.keys()):
        raise invalid(f"{folder}/model_index.json names parts that SDXL does not have: {', '.join(extra)}")


def _read_index(path: Path) -> dict[str, Any]:
    try:
        index = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise missing(f"{path} can't be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise invalid(f"{path} is not valid JSON") from None
    if not isinstance(index, dict):
        raise invalid(f"{path} is not a JSON object")
    return index
