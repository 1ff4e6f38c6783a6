"""What can render: built-in model descriptors and the schema a UI can build a form from.

Two kinds exist. ``sdxl-checkpoint`` is one ``.safetensors`` file rendered by the ``sdxl`` backend. ``sketch`` is no
diffusion model at all: it draws a deterministic picture from prompt and seed, so that the whole system
can be tried and tested on a machine without a GPU or a checkpoint.
"""

from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from dreamforge.jobs import StepName
from dreamforge.presets import PRESETS
from dreamforge.spec import RenderParams

#: The provider a request means when it names none (FR-002); both backends answer to it.
DEFAULT_PROVIDER: Final = "local-sdxl-epicrealism"
SKETCH_PROVIDER: Final = "local-sketch"
PROVIDERS = (DEFAULT_PROVIDER, SKETCH_PROVIDER)


class ModelKind(StrEnum):
    """What sort of model it is; the kind decides the backend."""

    SDXL_CHECKPOINT = "sdxl-checkpoint"
    SKETCH = "sketch"


class BackendMode(StrEnum):
    """The setting ``DF_RUNNER_BACKEND``."""

    AUTO = "auto"
    SKETCH = "sketch"
    SDXL = "sdxl"


class ModelDescriptor(BaseModel):
    """One registry entry (FR-080), before the database adds its times."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    name: str
    kind: ModelKind
    version: str
    checkpoint_hash: str | None = None
    source_uri: str
    local_path: str | None = None
    size_bytes: int | None = None
    installed: bool
    enabled: bool = True
    capabilities: tuple[str, ...] = (StepName.GENERATE.value,)


SKETCH = ModelDescriptor(
    id="sketch",
    name="Sketch (deterministic drawing, not a diffusion model)",
    kind=ModelKind.SKETCH,
    version="1",
    source_uri="builtin:sketch",
    installed=True,
)


def checkpoint_descriptor(path: Path) -> ModelDescriptor:
    """Describe a checkpoint placed by hand; ``installed`` says whether the file is there now.

    The id comes from the file name; anything that looks like EpicRealism XL gets the id that FR-081 names.
    """
    stem = path.stem
    plain = "".join(c if c.isalnum() else "-" for c in stem.lower()).strip("-") or "checkpoint"
    epic = "epicrealism" in stem.lower()
    exists = path.is_file()
    return ModelDescriptor(
        id="sdxl-epicrealism-xl" if epic else f"sdxl-{plain}"[:128],
        name="EpicRealism XL" if epic else stem,
        kind=ModelKind.SDXL_CHECKPOINT,
        version="local",
        source_uri=f"file:{path.name}",
        local_path=str(path),
        size_bytes=path.stat().st_size if exists else None,
        installed=exists,
    )


def parameters_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a job's parameters: titles, defaults, ranges, enum values, presets."""
    schema = RenderParams.model_json_schema(mode="validation")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Render parameters"
    schema["properties"]["preset"] = {
        "title": "Preset",
        "type": "string",
        "enum": sorted(PRESETS),
        "description": "A named bundle of defaults; fields you set win over it.",
    }
    return schema
