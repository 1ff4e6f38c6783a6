"""Named, versioned bundles of parameter defaults (FR-043), each with the class of GPU it is meant for.

A preset only fills what the request left out. Its name ends in its version, and a job's row keeps that name: what
``portrait@1`` means never changes, a better one is ``portrait@2``. Some are for every model, below; a model may bring
its own in its descriptor, which win over those of the same name.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from dreamforge.spec import GuidanceCutoff, Scheduler, Size

_BARE = r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?"
_VERSION = "@[1-9][0-9]{0,3}"
#: What a request may say: a name, or a name and its version.
REQUESTED: Final = rf"^{_BARE}(?:{_VERSION})?$"
PresetName = Annotated[str, Field(pattern=rf"^{_BARE}{_VERSION}$")]


class PresetDefaults(BaseModel):
    """What a preset may fill in, by the rules of a request."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    width: Size | None = None
    height: Size | None = None
    steps: Annotated[int, Field(ge=1, le=150)] | None = None
    guidance: Annotated[float, Field(ge=0, le=30)] | None = None
    scheduler: Annotated[Scheduler, Field(strict=False)] | None = None
    guidance_cutoff: GuidanceCutoff | None = None


class Preset(BaseModel):
    """A bundle of defaults and whom it is for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gpu_memory_gib: int = Field(ge=1, le=1024, description="The smallest GPU memory (GiB) that it is meant for.")
    defaults: PresetDefaults

    @property
    def fills(self) -> dict[str, Any]:
        """The parameters it sets."""
        return self.defaults.model_dump(exclude_none=True)


#: What a preset can fill in.
FILLABLE: Final = frozenset(PresetDefaults.model_fields)


def _preset(gpu_memory_gib: int, width: int, height: int, steps: int, **more: float) -> Preset:
    size = {"width": width, "height": height, "steps": steps}
    return Preset.model_validate(
        {"gpu_memory_gib": gpu_memory_gib, "defaults": size | {"scheduler": Scheduler.DPMPP_2M_KARRAS, **more}}
    )


#: For every model.
PRESETS: Final[Mapping[str, Preset]] = {
    "draft@1": _preset(8, 768, 768, 12),
    "standard@1": _preset(12, 1024, 1024, 30),
    "portrait@1": _preset(12, 832, 1216, 30),
    "landscape@1": _preset(12, 1216, 832, 30),
    "quality@1": _preset(16, 1024, 1024, 50),
    # The fast ones change the picture for speed: `standard` without guidance after 40 % of its steps, and with a
    # third of its steps, which a multi-step scheduler still makes a picture of.
    "fast-guidance-cutoff@1": _preset(12, 1024, 1024, 30, guidance_cutoff=0.4),
    "fast-few-steps@1": _preset(12, 1024, 1024, 10, guidance=5.0),
}


def read(stored: Mapping[str, Any]) -> dict[str, Preset]:
    """A model's own presets as its registry row keeps them."""
    return {name: Preset.model_validate(given) for name, given in stored.items()}


def offered(own: Mapping[str, Preset]) -> dict[str, Preset]:
    """All presets of a model by versioned name: its own, and of the others those whose name it does not use."""
    return {**{name: preset for name, preset in PRESETS.items() if name not in own}, **own}


def requestable(own: Mapping[str, Preset]) -> dict[str, str]:
    """What a request for a model may say, and the versioned name that it means."""
    meant = {name: name for name in offered(own)}
    for group in (PRESETS, own):  # the model's own last: they win
        for name in sorted(group, key=_number):
            meant[_bare(name)] = name
    return meant


def _bare(name: str) -> str:
    return name.partition("@")[0]


def _number(name: str) -> int:
    return int(re.sub(r".*@", "", name))
