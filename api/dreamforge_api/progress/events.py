"""What a stream's ``data:`` lines say, for the document; :mod:`dreamforge_api.progress.frames` makes them."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field

from dreamforge.errors import ErrorCode
from dreamforge.events import EventType, Level
from dreamforge.jobs import JobState
from dreamforge.spec import ImageFormat


class _StreamEvent(BaseModel):
    seq: int = Field(ge=1, description="Counts from 1 within the job.")
    ts: datetime
    job_id: UUID
    step: str
    item_index: int | None


class StateEvent(_StreamEvent):
    """The job moved; a terminal `status` is the last event."""

    status: JobState
    previous: JobState
    attempt: int


class ProgressEvent(_StreamEvent):
    """How far the job and one of its items are."""

    progress: float = Field(ge=0, le=1)
    item_progress: float = Field(ge=0, le=1)
    stage: str
    step_index: int
    steps_total: int


class ArtifactEvent(_StreamEvent):
    """An image is stored. Its link is in the artifact listing: links age, events don't."""

    id: UUID
    format: ImageFormat
    width: int
    height: int
    seed: int
    size_bytes: int
    sha256: str
    metadata: dict[str, Any]


class LogEvent(_StreamEvent):
    """A line for people."""

    level: Level
    code: str
    message: str


class ErrorEvent(_StreamEvent):
    """Why the job failed."""

    code: ErrorCode
    message: str
    retryable: bool


class EndEvent(BaseModel):
    """Nothing follows; the stream closes. The frame has no `id`."""

    last_seq: int = Field(ge=0)


_DATA: dict[str, type[BaseModel]] = {
    EventType.STATE: StateEvent,
    EventType.PROGRESS: ProgressEvent,
    EventType.ARTIFACT: ArtifactEvent,
    EventType.LOG: LogEvent,
    EventType.ERROR: ErrorEvent,
    "end": EndEvent,
}
MODELS = tuple(_DATA.values())


def _frame(event: str, model: type[BaseModel]) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    properties: dict[str, Any] = {
        "event": {"const": event},
        "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": schema},
    }
    return {"required": ["event", "data"], "properties": properties}


#: One frame of a stream, as an ``itemSchema`` (OpenAPI 3.2's word, which readers of 3.1 may ignore).
FRAME: dict[str, Any] = {"type": "object", "oneOf": [_frame(event, model) for event, model in _DATA.items()]}
