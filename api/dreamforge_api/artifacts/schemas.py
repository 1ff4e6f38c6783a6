"""Images of a job, with links that expire."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field

from dreamforge.spec import ImageFormat


class Artifact(BaseModel):
    """One stored image."""

    id: UUID
    step: str
    item_index: int
    format: ImageFormat
    width: int
    height: int
    seed: int
    size_bytes: int
    sha256: str
    url: str = Field(description="Reads this one object, by GET, until `url_expires_at`.")
    url_expires_at: datetime
    metadata: dict[str, Any]


class ArtifactList(BaseModel):
    """The images stored so far, by item."""

    items: list[Artifact]
