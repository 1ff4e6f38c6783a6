"""The model registry as clients see it."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from dreamforge.models import ModelKind


class Model(BaseModel):
    """One registered model."""

    id: str
    name: str
    kind: ModelKind
    version: str
    checkpoint_hash: str | None
    source_uri: str
    local_path: str | None
    size_bytes: int | None
    installed: bool
    enabled: bool
    parameters_schema: dict[str, Any] = Field(description="JSON Schema (2020-12) a UI can build a form from.")
    capabilities: list[str] = Field(description="Job types it can do.")
    created_at: datetime
    updated_at: datetime


class ModelList(BaseModel):
    """Registered models in the order they were registered."""

    items: list[Model]
