"""What the operator tells ingest about RenderJobs: a closed union beside the runner's events.

A ``RenderJob`` that a person applied becomes a row by :class:`JobRegistered`; the others end a job, or say why it
waits, when no runner can. Every announcement may be repeated and may come late: the operator repeats one until it is
answered (see :class:`Answer`), ingest guards each by the job's state. ``JobRegistered`` is sent before the child
object is made, so that a pod's first events find a row.

Prompts are in ``JobRegistered.params`` alone, which goes through Redis to Postgres and is never logged.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter

from dreamforge.errors import ErrorCode
from dreamforge.events import Failure, Level, Message
from dreamforge.models import MAX_ID

ANNOUNCEMENT_VERSION = 1


class _Announcement(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = ANNOUNCEMENT_VERSION
    job_id: UUID
    namespace: str = Field(min_length=1, max_length=63)
    name: str = Field(min_length=1, max_length=253)
    uid: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$", description="Of the RenderJob.")
    ts: datetime

    @property
    def ref(self) -> str:
        """What ``executor.ref`` of the job resource says."""
        return f"{self.namespace}/{self.name}"


class JobRegistered(_Announcement):
    """A RenderJob was accepted and is about to get its child. A job that the API made keeps its row."""

    type: Literal["job.registered"] = "job.registered"
    created_at: datetime = Field(description="The object's creation; the `ts` of every object key.")
    deadline_at: datetime = Field(description="When the job must have ended, queue and pauses included.")
    provider: str = Field(max_length=128)
    model_id: str | None = Field(None, max_length=MAX_ID, description="None: the API's default model is taken.")
    params: dict[str, JsonValue] | None = Field(
        None, description="Inline input with its count, as `RenderParams`; None when a Secret holds it."
    )
    labels: dict[str, str] = Field(default_factory=dict)
    correlation_id: str = Field(max_length=128)


class JobCancelRequested(_Announcement):
    """Somebody set ``spec.cancel``; runners that stop from now on end the job as canceled."""

    type: Literal["job.cancel_requested"] = "job.cancel_requested"


class JobDeleted(_Announcement):
    """The RenderJob is gone: the job ends as canceled, whatever it was doing."""

    type: Literal["job.deleted"] = "job.deleted"


class JobWaiting(_Announcement):
    """Why nothing runs yet, or what stands in the way: one log event, once for each new reason."""

    type: Literal["job.waiting"] = "job.waiting"
    level: Level = Level.WARNING
    reason: str = Field(max_length=64, pattern=r"^[A-Za-z][A-Za-z0-9._]*$", description="`code` of the log event.")
    message: Message


class EndedAs(StrEnum):
    """How the cluster saw a job end."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


class JobEnded(_Announcement):
    """The cluster's verdict, sent for every end: it counts where the runner's own events did not come through.

    ``SUCCEEDED`` has ingest look into the store for images that it was never told of.
    """

    type: Literal["job.ended"] = "job.ended"
    outcome: EndedAs
    failure: Failure | None = Field(None, description="Given exactly when the outcome is failed.")


Announcement = Annotated[
    JobRegistered | JobCancelRequested | JobDeleted | JobWaiting | JobEnded, Field(discriminator="type")
]
ANNOUNCEMENT: TypeAdapter[Announcement] = TypeAdapter(Announcement)


class Reception(StrEnum):
    """What ingest made of an announcement. Only ``UNKNOWN_JOB`` asks for more: register the job (again)."""

    RECORDED = "recorded"
    #: The job has ended; nothing changed.
    OVER = "over"
    #: Nobody registered this job, or its row was removed by retention.
    UNKNOWN_JOB = "unknown_job"
    #: The job id belongs to another object.
    TAKEN = "taken"
    #: The input breaks a rule that the schema of the custom resource can't hold.
    INVALID = "invalid"
    #: The model is not in the registry; the job is listed as failed.
    UNKNOWN_MODEL = "unknown_model"

    @property
    def refused(self) -> bool:
        """Whether the RenderJob must not render."""
        return self in (Reception.TAKEN, Reception.INVALID, Reception.UNKNOWN_MODEL)


class Answer(BaseModel):
    """Ingest's answer to one announcement, after the commit; ``message`` repeats no input."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    uid: str
    type: str
    reception: Reception
    code: ErrorCode | None = None
    message: str = ""


class Progress(BaseModel):
    """How far a job is, by what ingest has committed: published on every change, never repeated, no promise."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    job_id: UUID
    attempt: int = Field(description="Number of the newest attempt, 1 and up.")
    progress: float = Field(ge=0, le=1)
    items_done: int
    items_total: int
    eta_seconds: float | None = None
