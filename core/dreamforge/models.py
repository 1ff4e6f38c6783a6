"""What can render: model descriptors and how they are named.

Two kinds exist. ``sdxl-checkpoint`` is one ``.safetensors`` file rendered by the ``sdxl`` backend. ``sketch`` is no
diffusion model at all: it draws a deterministic picture from prompt and seed, so that the whole system
can be tried and tested on a machine without a GPU or a checkpoint.
"""

import re
import stat
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from dreamforge.jobs import StepName
from dreamforge.presets import Preset, PresetName

#: The provider a request means when it names none (FR-002); both backends answer to it.
DEFAULT_PROVIDER: Final = "local-sdxl-epicrealism"
SKETCH_PROVIDER: Final = "local-sketch"
#: The longest model id that a request may name.
MAX_ID: Final = 128
#: The slug of the default model (FR-081).
EPICREALISM: Final = "sdxl-epicrealism-xl"
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


class FileRole(StrEnum):
    """What a file of a model is for."""

    CHECKPOINT = "checkpoint"
    CONFIG = "config"
    CONVERTED = "converted"


class ModelEvent(StrEnum):
    """What can happen to a registered model; the history of each is kept in ``model_events``."""

    REGISTERED = "registered"
    VERIFIED = "verified"
    NOT_INSTALLED = "not_installed"
    INSTALLED = "installed"
    REMOVED = "removed"


_SLUG = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,62}[a-z0-9])?")
_VERSION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@ +()-]{0,127}")


def _matches(pattern: re.Pattern[str], what: str) -> AfterValidator:
    def check(value: str) -> str:
        if not pattern.fullmatch(value) or ".." in value:
            raise ValueError(f"{value[:80]!r} is no {what}")
        return value

    return AfterValidator(check)


def _inside(value: str) -> str:
    if len(value) > 255 or not all(_PART.fullmatch(part) and part.strip(" .") == part for part in value.split("/")):
        raise ValueError(f"{value[:80]!r} is no path of plain names below a folder")
    return value


Slug = Annotated[str, _matches(_SLUG, "slug: lower-case letters, digits, dots and dashes, at most 64")]
Version = Annotated[str, _matches(_VERSION, "version: letters, digits, dots, dashes and underscores, at most 64")]
#: POSIX path below a model's folder: plain names only, so that joining it to a folder can't leave the folder.
InsidePath = Annotated[str, AfterValidator(_inside)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def plain(text: str, pattern: re.Pattern[str] = re.compile(r"[^a-z0-9.]+")) -> str:
    """Any text as (part of) a slug: lower case, dashes for what a slug can't hold; may be empty."""
    return pattern.sub("-", text.lower()).replace("..", ".").strip("-.")[:64].strip("-.")


class ModelFile(BaseModel):
    """One file of a model, as it was when its sha256 was verified."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: InsidePath = Field(description="POSIX path below the model's folder.")
    role: FileRole
    size_bytes: int = Field(ge=0)
    sha256: Sha256


class Provenance(BaseModel):
    """Where a model's files came from. Holds no token and no signed URL, ever."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field(description="The adapter: `hf`, `civitai`, `file`, or a plug-in's name.")
    ref: str = Field(description="The reference as a person gave it.")
    revision: str | None = Field(None, description="Branch, tag or version that was asked for.")
    commit: str | None = Field(None, description="What the revision was when it was resolved (Hugging Face).")
    ids: dict[str, str] = Field(
        default_factory=dict, description="The source's own ids (CivitAI: model, version, file)."
    )
    page: str | None = Field(None, description="Where a person reads about it.")
    license: str | None = Field(None, description="The licence, as far as the source told it.")


class ModelDescriptor(BaseModel):
    """One registry entry (FR-080), before the database adds its times.

    ``id`` is what a job names: the slug for built-in models and checkpoints placed by hand, ``slug@version`` for
    installed ones. A job that names the slug alone gets the newest installed version, and its row keeps that id.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    slug: Slug
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
    folder: InsidePath | None = Field(None, description="POSIX path of its folder below the models root.")
    files: tuple[ModelFile, ...] = ()
    provenance: Provenance | None = None
    presets: Mapping[PresetName, Preset] = Field(default_factory=dict, description="Its own, by versioned name.")
    verified_at: datetime | None = None
    problem: str | None = Field(None, description="Why it is not installed, for people.")


SKETCH = ModelDescriptor(
    id="sketch",
    slug="sketch",
    name="Sketch (deterministic drawing, not a diffusion model)",
    kind=ModelKind.SKETCH,
    version="1",
    source_uri="builtin:sketch",
    installed=True,
)


def sdxl_slug(name: str) -> str:
    """The slug of an SDXL checkpoint by its name; what looks like EpicRealism XL gets the one that FR-081 names."""
    if "epicrealism" in re.sub(r"[^a-z]", "", name.lower()):
        return EPICREALISM
    return f"sdxl-{plain(name).removeprefix('sdxl-') or 'checkpoint'}"[:64].strip("-.")


def checkpoint_descriptor(path: Path) -> ModelDescriptor:
    """Describe a checkpoint placed by hand; ``installed`` says whether the file is there now.

    The id comes from the file name; anything that looks like EpicRealism XL gets the id that FR-081 names.
    """
    path = path.absolute()
    size = _size_of(path)
    slug = sdxl_slug(path.stem)
    return ModelDescriptor(
        id=slug,
        slug=slug,
        name="EpicRealism XL" if slug == EPICREALISM else path.stem,
        kind=ModelKind.SDXL_CHECKPOINT,
        version="local",
        source_uri=f"file:{path.name}",
        local_path=str(path),
        size_bytes=size,
        installed=size is not None,
        problem=None if size is not None else f"there is no file {path}",
    )


def _size_of(path: Path) -> int | None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
