"""The model registry as clients see it."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from dreamforge.models import ModelFile, ModelKind, Provenance
from dreamforge.presets import Preset


class Model(BaseModel):
    """One registered model."""

    id: str = Field(description="What a job names: `slug@version`, or the slug alone of what was placed by hand.")
    slug: str = Field(description="A job that names this gets the newest version that is installed.")
    name: str
    kind: ModelKind
    version: str
    checkpoint_hash: str | None
    source_uri: str
    local_path: str | None
    size_bytes: int | None
    files: list[ModelFile] = Field(description="What was installed, and how each file was when it was verified.")
    provenance: Provenance | None = Field(description="Where it came from; null for what was placed by hand.")
    verified_at: datetime | None = Field(description="When the hash of every file was last seen to be right.")
    installed: bool
    problem: str | None = Field(description="Why it is not installed.")
    enabled: bool
    parameters_schema: dict[str, Any] = Field(description="JSON Schema (2020-12) a UI can build a form from.")
    presets: dict[str, Preset] = Field(description="What `preset` of a job may name, by versioned name.")
    capabilities: list[str] = Field(description="Job types it can do.")
    created_at: datetime
    updated_at: datetime


class ModelList(BaseModel):
    """Registered models in the order they were registered."""

    items: list[Model]
