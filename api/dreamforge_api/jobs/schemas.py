"""What a client sends to make a job, and what it gets back."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, Field

from dreamforge.errors import ErrorCode
from dreamforge.jobs import JobState
from dreamforge.models import DEFAULT_PROVIDER, MAX_ID, SKETCH_PROVIDER
from dreamforge.presets import REQUESTED
from dreamforge.spec import CLEAN, Labels, RenderParams, clean_text

EXAMPLE_REQUEST: dict[str, Any] = {
    "type": "generate",
    "prompt": "an old-growth forest at dawn",
    "width": 1024,
    "height": 1024,
    "steps": 24,
    "guidance": 7.0,
    "format": "png",
}
_ID = "01a1fd5c-9981-7483-9833-4709df31d11f"


class CreateJobRequest(RenderParams):
    """A job to be made. Unknown fields are refused; ``null`` on an optional field means absent."""

    type: Literal["generate"] = Field("generate", description="What the job does.")
    provider: Literal["local-sdxl-epicrealism", "local-sketch"] = Field(
        DEFAULT_PROVIDER, description=f"Who renders; `{SKETCH_PROVIDER}` draws without a diffusion model."
    )
    model_id: Annotated[str, Field(min_length=1, max_length=MAX_ID), AfterValidator(clean_text), CLEAN] | None = (
        Field(
            None,
            description="A model of `GET /v1/models`: its id, or its slug for the newest version that is "
            "installed; left out, the default one is taken.",
        )
    )
    preset: Annotated[str, Field(max_length=64, pattern=REQUESTED)] | None = Field(
        None,
        description="A named bundle of defaults; fields you set win over it. One of the model's `presets`, with its "
        "version, or without for the newest.",
        examples=["portrait", "portrait@1"],
    )
    labels: Labels = Field(default_factory=dict, description="Your own words for finding the job again.")


class JobFailure(BaseModel):
    """Why the job failed."""

    code: ErrorCode
    message: str
    retryable: bool
    item_index: int | None


class ExecutorRef(BaseModel):
    """What runs the job and how it calls it; both null until the job is handed over."""

    kind: str | None
    ref: str | None


class JobUrls(BaseModel):
    """Where to go from here; relative to the API's origin."""

    self: str
    events: str
    artifacts: str
    logs: str
    cancel: str


class Job(BaseModel):
    """One job as every call shows it."""

    id: UUID
    type: str
    provider: str
    model_id: str
    status: JobState
    progress: float = Field(ge=0, le=1)
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    deadline_at: datetime
    cancel_requested_at: datetime | None
    attempt: int = Field(description="Number of the newest attempt; 0 before the first.")
    params: RenderParams
    preset: str | None = Field(description="The preset that filled in what the request left out, by versioned name.")
    labels: dict[str, str]
    count: int
    completed: int = Field(description="Items whose image is stored.")
    queue_position: int | None = Field(description="1 is next; null when the job is not queued.")
    eta_seconds: float | None = Field(description="From recent items of this model; null when unknown.")
    warnings: list[str]
    error: JobFailure | None
    executor: ExecutorRef
    urls: JobUrls


class JobPage(BaseModel):
    """A page of jobs, newest first."""

    items: list[Job]
    next_cursor: str | None = Field(description="Give it as `cursor` for the next page; null on the last.")


EXAMPLE_JOB: dict[str, Any] = {
    "id": _ID,
    "type": "generate",
    "provider": DEFAULT_PROVIDER,
    "model_id": "sdxl-epicrealism-xl",
    "status": "queued",
    "progress": 0.0,
    "created_at": "2026-11-20T12:00:00.000Z",
    "started_at": None,
    "finished_at": None,
    "deadline_at": "2026-11-21T12:00:00.000Z",
    "cancel_requested_at": None,
    "attempt": 0,
    "params": RenderParams.model_validate(
        {k: v for k, v in EXAMPLE_REQUEST.items() if k in RenderParams.model_fields}
    ).model_dump(mode="json"),
    "preset": None,
    "labels": {},
    "count": 1,
    "completed": 0,
    "queue_position": 1,
    "eta_seconds": None,
    "warnings": [],
    "error": None,
    "executor": {"kind": None, "ref": None},
    "urls": {
        "self": f"/v1/jobs/{_ID}",
        "events": f"/v1/jobs/{_ID}/progress/stream",
        "artifacts": f"/v1/jobs/{_ID}/artifacts",
        "logs": f"/v1/jobs/{_ID}/logs",
        "cancel": f"/v1/jobs/{_ID}/cancel",
    },
}
