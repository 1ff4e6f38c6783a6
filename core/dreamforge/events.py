"""Two closed unions of events.

*Runner events* are what a runner says: it numbers them from 1 within one attempt (``producer_seq``), appends
them to a spool and sends them in batches. *Public event types* are what ``GET .../progress/stream`` and
``.../logs`` show: ingest turns the first into the second and gives each row its per-job ``seq``.

An attempt is named by ``attempt_id`` (the pod's UID, or an id drawn when a runner takes a local job). A batch
chains to the one before it by ``prev_seq``, so ingest accepts events of an attempt in order, each once, even
when the transport repeats, reorders or loses batches.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter

from dreamforge.errors import ErrorCode
from dreamforge.jobs import StepName
from dreamforge.spec import ImageFormat

EVENT_VERSION = 1


class EventType(StrEnum):
    """The SSE event names, and the ``type`` column of the events table."""

    STATE = "state"
    PROGRESS = "progress"
    LOG = "log"
    ARTIFACT = "artifact"
    ERROR = "error"


class Level(StrEnum):
    """How loud a log event is."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Stage(StrEnum):
    """What an item is doing; with its weight in the item's progress (see :func:`item_progress`)."""

    LOADING = "loading"
    DENOISING = "denoising"
    DECODING = "decoding"
    STORING = "storing"


#: Item progress when a stage begins (seconds spent differ by machine; these are shares a person expects).
STAGE_START = {Stage.LOADING: 0.0, Stage.DENOISING: 0.02, Stage.DECODING: 0.92, Stage.STORING: 0.96}


def item_progress(stage: Stage, step_index: int = 0, steps_total: int = 1) -> float:
    """Progress (0..1) of one item: a done item is 1.0, which only a stored artifact makes it."""
    if stage is not Stage.DENOISING:
        return STAGE_START[stage]
    share = min(step_index / max(steps_total, 1), 1.0)
    begin, end = STAGE_START[Stage.DENOISING], STAGE_START[Stage.DECODING]
    return round(begin + (end - begin) * share, 4)


def _storable(text: str) -> str:
    """What Postgres can't store (NUL, lone surrogates; library errors hold such things) becomes U+FFFD."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


Message = Annotated[str, AfterValidator(_storable), Field(max_length=4000)]


class _RunnerEvent(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    seq: int = Field(ge=1, le=2**53, description="`producer_seq`: counts from 1 within the attempt.")
    ts: datetime


class AttemptStarted(_RunnerEvent):
    """A runner took the shard; the first event of every attempt."""

    type: Literal["attempt.started"] = "attempt.started"
    backend: str
    runner: str = Field(max_length=256, description="Host or pod name.")


class ItemStarted(_RunnerEvent):
    """An item's seed was drawn, right before its rendering began."""

    type: Literal["item.started"] = "item.started"
    item_index: int = Field(ge=0)
    item_seed: int = Field(ge=0, le=2**32 - 1)


class ItemProgressed(_RunnerEvent):
    """How far an item is; superseded by the next one of the same item."""

    type: Literal["item.progressed"] = "item.progressed"
    item_index: int = Field(ge=0)
    stage: Stage
    step_index: int = Field(ge=0)
    steps_total: int = Field(ge=0)


class ArtifactStored(_RunnerEvent):
    """An item's image is in the object store; this ends the item."""

    type: Literal["artifact.stored"] = "artifact.stored"
    item_index: int = Field(ge=0)
    key: str
    format: ImageFormat
    width: int
    height: int
    item_seed: int = Field(ge=0, le=2**32 - 1)
    size_bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    metadata: dict[str, object]
    seconds: float | None = Field(None, description="From the item's start to its storing, in seconds.")


class LogWritten(_RunnerEvent):
    """A line for people; ``code`` is a stable word a program can match."""

    type: Literal["log"] = "log"
    level: Level
    code: str = Field(max_length=64)
    message: Message
    item_index: int | None = None


class AllocatorMemory(BaseModel):
    """What the backend's allocator says of a job, in MiB: given to tensors, and taken from the device for them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    allocated_start_mib: float = Field(description="When the job began, with its model loaded.")
    allocated_peak_mib: float
    allocated_end_mib: float
    reserved_peak_mib: float
    reserved_end_mib: float


class GpuMeasured(_RunnerEvent):
    """GPU memory around an attempt (OR-001), in MiB; all ``None`` means it was not measured."""

    type: Literal["gpu.measured"] = "gpu.measured"
    source: Literal["nvml", "torch", "none"]
    start_mib: float | None
    peak_mib: float | None
    end_mib: float | None
    clean: bool | None = Field(description="Back at the baseline; None when not measured.")
    child_discarded: bool
    allocator: AllocatorMemory | None = Field(
        None, description="The backend's own part of it; None when it did not get to say."
    )


class Failure(BaseModel):
    """Why an attempt ended badly; the message never holds a prompt or a secret."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    code: ErrorCode
    message: Message
    item_index: int | None = None


class Outcome(StrEnum):
    """How an attempt ended. ``CANCELED``: the job's cancel reached it; ``STOPPED``: its process was told to go."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    STOPPED = "stopped"


class AttemptFinished(_RunnerEvent):
    """The last event of every attempt that got to say goodbye."""

    type: Literal["attempt.finished"] = "attempt.finished"
    outcome: Outcome
    exit_code: int
    items_done: int
    failure: Failure | None = None


RunnerEvent = Annotated[
    AttemptStarted | ItemStarted | ItemProgressed | ArtifactStored | LogWritten | GpuMeasured | AttemptFinished,
    Field(discriminator="type"),
]


class EventBatch(BaseModel):
    """Events of one attempt, in order. ``prev_seq`` is the ``seq`` sent before this batch (0 at the start)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = EVENT_VERSION
    job_id: UUID
    step: StepName
    shard: int = Field(ge=0)
    shards: int = Field(1, ge=1, description="How many runners share the step's items.")
    attempt_id: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")
    correlation_id: str = Field(max_length=128)
    prev_seq: int = Field(ge=0)
    events: list[RunnerEvent] = Field(min_length=1)

    @property
    def last_seq(self) -> int:
        return self.events[-1].seq


class Verdict(StrEnum):
    """Ingest's answer to a batch. After a refusal the runner drops its spool and stops the work."""

    COMMITTED = "committed"
    GAP = "gap"
    REFUSED_FENCED = "refused_fenced"
    REFUSED_TERMINAL = "refused_terminal"
    REFUSED_UNKNOWN_JOB = "refused_unknown_job"
    REFUSED_BAD_BATCH = "refused_bad_batch"

    @property
    def refused(self) -> bool:
        return self.name.startswith("REFUSED")


class Ack(BaseModel):
    """How far an attempt's events are safe in Postgres: everything up to ``seq`` may leave the spool."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    attempt_id: str
    seq: int
    verdict: Verdict


BATCH: TypeAdapter[EventBatch] = TypeAdapter(EventBatch)
RUNNER_EVENT: TypeAdapter[RunnerEvent] = TypeAdapter(RunnerEvent)
