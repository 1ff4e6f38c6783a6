"""The JSON Schema (2020-12) of a model's parameters: what ``POST /v1/jobs`` takes, as a UI can build a form from it.

It comes from the class that validates requests, so the two can't disagree. What form builders trip over is put
plainly: no references, choices as ``oneOf`` of ``const`` and ``title``, and ``null`` (which means absent) as one of a
property's types.
"""

from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from typing import Any, Final

from dreamforge.presets import Preset, offered, requestable
from dreamforge.spec import ImageFormat, RenderParams, Scheduler

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_ABSENT: Final = {"const": None, "title": "Default"}
_TITLES: Final[Mapping[str, str]] = {
    Scheduler.EULER: "Euler",
    Scheduler.EULER_A: "Euler ancestral",
    Scheduler.DPMPP_2M: "DPM++ 2M",
    Scheduler.DPMPP_2M_KARRAS: "DPM++ 2M Karras",
    Scheduler.DDIM: "DDIM",
    Scheduler.UNIPC: "UniPC",
    ImageFormat.PNG: "PNG",
    ImageFormat.JPG: "JPEG",
}


def parameters_schema(own: Mapping[str, Preset]) -> dict[str, Any]:
    """Titles, defaults, ranges and choices of a job's parameters; ``own`` are the presets that the model brings."""
    schema = deepcopy(_parameters())
    schema["properties"]["preset"] = {
        "title": "Preset",
        "description": "A named bundle of defaults; fields you set win over it.",
        "oneOf": [*_preset_choices(own), {"const": None, "title": "None"}],
        "default": None,
    }
    return schema


@cache
def _parameters() -> dict[str, Any]:
    schema = RenderParams.model_json_schema(mode="validation")
    definitions = schema.pop("$defs", {})
    required = set(schema["required"])
    shown = {
        name: {"title": name.replace("_", " ").capitalize()}
        | _property(given, definitions, optional=name not in required)
        for name, given in schema["properties"].items()
    }
    return {"$schema": DIALECT, **schema, "title": "Render parameters", "properties": shown}


def _property(given: dict[str, Any], definitions: Mapping[str, Any], *, optional: bool) -> dict[str, Any]:
    about = {key: given[key] for key in ("description", "default") if key in given}
    bare = {key: value for key, value in given.items() if key not in about and key != "title"}
    kinds = [kind for kind in bare.pop("anyOf", ()) if kind != {"type": "null"}]
    bare |= kinds[0] if len(kinds) == 1 else {}
    if "$ref" in bare:
        enum = definitions[bare["$ref"].rpartition("/")[2]]
        choices: list[dict[str, Any]] = [{"const": value, "title": _TITLES[value]} for value in enum["enum"]]
        return about | {"oneOf": [*choices, _ABSENT] if optional else choices}
    return about | bare | ({"type": [bare["type"], "null"]} if optional else {})


def _preset_choices(own: Mapping[str, Preset]) -> list[dict[str, Any]]:
    presets = offered(own)
    return [
        {"const": name, "title": _preset_title(name, meant, presets[meant])}
        for name, meant in sorted(requestable(own).items())
    ]


def _preset_title(name: str, meant: str, preset: Preset) -> str:
    fills = preset.fills
    parts = [f"{fills['width']} x {fills['height']}"] if {"width", "height"} <= fills.keys() else []
    parts += [f"{fills['steps']} steps"] if "steps" in fills else []
    parts += [_TITLES[fills["scheduler"]]] if "scheduler" in fills else []
    parts += [f"no guidance after {fills['guidance_cutoff']:.0%} of them"] if "guidance_cutoff" in fills else []
    parts += [f"for {preset.gpu_memory_gib} GiB of GPU memory and more"]
    bare, _, version = meant.partition("@")
    label = bare.replace("-", " ").capitalize() + (f", version {version}" if name == meant else "")
    return f"{label}: {', '.join(parts)}"
