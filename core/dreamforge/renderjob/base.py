"""The base of everything read from a cluster: camelCase outside, snake_case inside, unknown fields ignored."""

from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class ClusterModel(BaseModel):
    """A part of a ``RenderJob``. It must parse whatever an API server with our CRD lets through.

    Unknown fields are ignored, not refused: the API server prunes them, and a newer CRD may know more than we do.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        extra="ignore",
        frozen=True,
        allow_inf_nan=False,
    )

    def manifest(self) -> dict[str, Any]:
        """JSON-ready, with the cluster's field names; what was never set is left to the schema's defaults."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)
