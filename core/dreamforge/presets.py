"""Named, versioned bundles of parameter defaults (FR-043), by what a GPU's memory can take.

A preset only fills what the request left out. Its name ends in its version, so that a job row keeps meaning
what it meant when it was made.
"""

from typing import Any, NamedTuple


class Preset(NamedTuple):
    """Defaults, and the smallest GPU memory (GiB) they are meant for."""

    gpu_memory_gib: int
    defaults: dict[str, Any]


_VERSIONED = {
    "draft@1": Preset(8, {"width": 768, "height": 768, "steps": 12, "scheduler": "dpmpp_2m_karras"}),
    "standard@1": Preset(12, {"width": 1024, "height": 1024, "steps": 30, "scheduler": "dpmpp_2m_karras"}),
    "portrait@1": Preset(12, {"width": 832, "height": 1216, "steps": 30, "scheduler": "dpmpp_2m_karras"}),
    "landscape@1": Preset(12, {"width": 1216, "height": 832, "steps": 30, "scheduler": "dpmpp_2m_karras"}),
    "quality@1": Preset(16, {"width": 1024, "height": 1024, "steps": 50, "scheduler": "dpmpp_2m_karras"}),
}

#: Every name a request may use: the versioned one, and the bare one for its newest version.
PRESETS: dict[str, Preset] = _VERSIONED | {name.partition("@")[0]: p for name, p in _VERSIONED.items()}


def apply(name: str, params: dict[str, Any]) -> dict[str, Any]:
    """``params`` with the preset's defaults under it; raises ``KeyError`` for an unknown preset."""
    given = {key: value for key, value in params.items() if value is not None}
    return {**PRESETS[name].defaults, **given}
