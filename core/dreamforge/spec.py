"""What is rendered: the parameters a client may set, and the spec a runner is given.

:class:`RenderParams` is the one set of rules for REST bodies and for inline ``RenderJob`` input alike. Numbers
are strict (``"1024"``, ``256.0`` and ``true`` are refused), unknown fields are refused, ``null`` on a field
with a default means absent, and text may hold anything but NUL, other C0 controls than tab, LF and CR, and
lone surrogates.
"""

import re
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from dreamforge.jobs import StepName

SPEC_VERSION = 1
MAX_SEED = 2**32 - 1
MAX_COUNT = 100
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")
#: The same as a part of a regular expression for JSON Schema, where a lone surrogate is no character.
UNCLEAN = r"\x00-\x08\x0b\x0c\x0e-\x1f"


class Scheduler(StrEnum):
    """Denoising schedulers a request may name."""

    EULER = "euler"
    EULER_A = "euler_a"
    DPMPP_2M = "dpmpp_2m"
    DPMPP_2M_KARRAS = "dpmpp_2m_karras"
    DDIM = "ddim"
    UNIPC = "unipc"


class ImageFormat(StrEnum):
    """Image encodings a request may name; the value is the file extension too."""

    PNG = "png"
    JPG = "jpg"

    @property
    def media_type(self) -> str:
        return "image/png" if self is ImageFormat.PNG else "image/jpeg"


class Told:
    """Adds keywords to a type's JSON Schema: what a validator refuses, but pydantic can't read off it."""

    def __init__(self, **keywords: Any) -> None:
        self._keywords = keywords

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), **self._keywords}


def clean_text(value: str) -> str:
    """Refuse what can't be stored or shown: C0 controls but tab, LF, CR, and lone surrogates."""
    if _FORBIDDEN.search(value):
        raise PydanticCustomError(
            "text_character",
            "Text may not hold control characters other than tab, line feed and carriage return, nor lone surrogates",
        )
    return value


def not_blank(value: str) -> str:
    """Refuse a text of nothing but white space."""
    if not value.strip():
        raise PydanticCustomError("text_blank", "Text may not be blank")
    return value


CLEAN = Told(pattern=f"^[^{UNCLEAN}]*$")
LabelKey = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?$")]
LabelValue = Annotated[str, Field(max_length=256), AfterValidator(clean_text), CLEAN]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=16), Told(additionalProperties=False)]
Size = Annotated[int, Field(ge=256, le=2048, multiple_of=8)]
Count = Annotated[int, Field(ge=1, le=MAX_COUNT)]
GuidanceCutoff = Annotated[float, Field(ge=0, le=1)]


class StrictModel(BaseModel):
    """Base of everything read from outside: strict types, no unknown fields, ``null`` means absent."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        fields = cls.model_fields
        return {k: v for k, v in data.items() if v is not None or k not in fields or fields[k].is_required()}


class ImageParams(StrictModel):
    """What an image looks like: the parameters of a ``generate`` job but for how many there are."""

    # Bounds stand before the checks of the text: after a check, pydantic would count "items" of an unknown type.
    prompt: Annotated[
        str,
        Field(min_length=1, max_length=4000, description="What to draw."),
        AfterValidator(clean_text),
        AfterValidator(not_blank),
        Told(pattern=rf"^[^{UNCLEAN}]*[^\s{UNCLEAN}][^{UNCLEAN}]*$"),
    ]
    negative_prompt: Annotated[str, Field(max_length=4000), AfterValidator(clean_text), CLEAN] | None = Field(
        None, description="What to keep out of the picture."
    )
    width: Size = Field(1024, description="Pixels; a multiple of 8.")
    height: Size = Field(1024, description="Pixels; a multiple of 8.")
    steps: Annotated[int, Field(ge=1, le=150)] = Field(30, description="Denoising steps.")
    guidance: Annotated[float, Field(ge=0, le=30)] = Field(
        7.0, description="Classifier-free guidance scale; 1 and below switches guidance off."
    )
    guidance_cutoff: GuidanceCutoff | None = Field(
        None,
        description="Share of the steps after which guidance is left out: faster, and ANOTHER PICTURE.",
        exclude_if=lambda cutoff: cutoff is None,
    )
    scheduler: Annotated[Scheduler, Field(strict=False)] = Field(Scheduler.EULER, description="Denoising scheduler.")
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = Field(
        None, description="Seed of the one image; ignored when count is above 1."
    )
    format: Annotated[ImageFormat, Field(strict=False)] = Field(
        ImageFormat.PNG, description="Encoding of the images."
    )
    embed_metadata: bool = Field(True, description="Write prompt, seed and settings into each image.")


class RenderParams(ImageParams):
    """The parameters of a ``generate`` job, with their defaults filled in."""

    count: Count = Field(1, description="Images to render.")


class ModelRef(BaseModel):
    """The model a runner loads: resolved by the control loop at dispatch, never by the client."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    name: str
    kind: str = Field(description="`sdxl-checkpoint` or `sketch`; picks the backend.")
    version: str
    path: str | None = Field(None, description="The checkpoint file on the runner's disk.")
    folder_path: str | None = Field(
        None,
        description="The checkpoint, or a model's folder with its descriptor, below the runner's models root; where "
        "that is set this counts and not `path`.",
    )
    sha256: str | None = None
    size_bytes: int | None = None


class Limits(BaseModel):
    """Bounds in seconds that the runner's supervisor keeps."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    item_timeout_seconds: float = Field(1800, gt=0)
    grace_seconds: float = Field(5, gt=0, description="Between SIGTERM and SIGKILL.")
    deadline_at: datetime | None = Field(None, description="When the job must have ended.")


class Shard(BaseModel):
    """Which items of the batch this runner renders: those with ``item % count == index``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    index: int = Field(0, ge=0)
    count: int = Field(1, ge=1)

    def items(self, total: int) -> range:
        return range(self.index, total, self.count)


class RenderSpec(BaseModel):
    """Everything a runner needs for one step of one job; a JSON file in pods, a queue message locally."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = SPEC_VERSION
    job_id: UUID
    step: StepName = StepName.GENERATE
    user: str = "default"
    created_at: datetime = Field(description="The job's `created_at`; the `ts` of every object key.")
    correlation_id: str
    params: RenderParams
    model: ModelRef
    limits: Limits = Limits()
    shard: Shard = Shard()
    seeds: dict[int, int] = Field(
        default_factory=dict, description="Seeds that earlier attempts drew, by item index: written once."
    )

    @property
    def whole(self) -> "RenderSpec":
        """The same step with all its items in one hand."""
        return self.model_copy(update={"shard": Shard()})
