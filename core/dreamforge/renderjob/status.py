"""What the operator says about a RenderJob. It alone writes this, and can derive it again from child objects."""

from typing import Annotated, Self
from uuid import UUID

from pydantic import Field, WithJsonSchema

from dreamforge.errors import FACTS, ErrorCode
from dreamforge.renderjob import ranges
from dreamforge.renderjob.base import ClusterModel, Time
from dreamforge.renderjob.conditions import FAILURE_CLASSES, Condition, ConditionStatus, ConditionType, Phase
from dreamforge.spec import MAX_COUNT

UUID_PATTERN = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
JobId = Annotated[UUID, WithJsonSchema({"type": "string", "minLength": 36, "maxLength": 36, "pattern": UUID_PATTERN})]
ItemRanges = Annotated[str, Field(max_length=ranges.MAX_LENGTH, pattern=ranges.PATTERN)]
Items = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Mebibytes = Annotated[int, Field(ge=0, le=2**31 - 1)]
FailureClass = Annotated[
    ErrorCode, WithJsonSchema({"type": "string", "enum": [code.value for code in FAILURE_CLASSES]})
]

#: ``observedGeneration`` of an object that no operator has seen.
UNSEEN = -1


class Progress(ClusterModel):
    """How far the job is."""

    percent: Annotated[int, Field(ge=0, le=100)] = Field(0, description="Share of the work that is done, 0 to 100.")
    items_total: Items = Field(0, description="Images the job is to make.")
    items_done: Items = Field(0, description="Images that are stored.")
    eta_seconds: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = Field(
        None, description="Seconds until the job is expected to be done; absent while nobody can tell."
    )


class ItemsStatus(ClusterModel):
    """Which items ended how, as index ranges such as 0-3,5."""

    succeeded: ItemRanges = Field("", description="Items whose image is stored, as index ranges such as 0-3,5.")
    failed: ItemRanges = Field("", description="Items that failed for good, as index ranges such as 0-3,5.")


class GPUStatus(ClusterModel):
    """The GPU that the last runner had, and its memory before, during and after: the proof that it was left clean."""

    product: Annotated[str, Field(max_length=128)] | None = Field(None, description="The GPU's name.")
    count: Annotated[int, Field(ge=0, le=16)] | None = Field(None, description="GPUs of each runner.")
    vram_start_mib: Mebibytes | None = Field(
        None,
        validation_alias="vramStartMiB",
        serialization_alias="vramStartMiB",
        description="GPU memory in use before the runner's work, in MiB.",
    )
    vram_peak_mib: Mebibytes | None = Field(
        None,
        validation_alias="vramPeakMiB",
        serialization_alias="vramPeakMiB",
        description="The most GPU memory in use, in MiB.",
    )
    vram_end_mib: Mebibytes | None = Field(
        None,
        validation_alias="vramEndMiB",
        serialization_alias="vramEndMiB",
        description="GPU memory in use after the runner's work, in MiB.",
    )
    clean: bool | None = Field(None, description="Memory was back at its baseline; absent when it was not measured.")


class FailureStatus(ClusterModel):
    """Why the job failed."""

    error_class: FailureClass = Field(
        validation_alias="class",
        serialization_alias="class",
        description="The error class, from the one closed list that API, events and metrics use too.",
    )
    reason: Annotated[str, Field(min_length=1, max_length=64)] = Field(
        description="The reason of the Failed condition: one word that programs can match."
    )
    item_index: Annotated[int, Field(ge=0, le=MAX_COUNT - 1)] | None = Field(
        None, description="The item that failed, the first without an image; absent when no single item did."
    )
    exit_code: Annotated[int, Field(ge=0, le=255)] | None = Field(
        None, description="The runner's exit code; absent when none ran."
    )
    retryable: bool = Field(description="Whether the same job may succeed when it is tried again.")

    @classmethod
    def of(cls, code: ErrorCode, reason: str, *, item_index: int | None = None, exit_code: int | None = None) -> Self:
        """A failure whose ``retryable`` is what the closed error list says."""
        return cls(
            error_class=code,
            reason=reason,
            item_index=item_index,
            exit_code=exit_code,
            retryable=FACTS[code].retryable,
        )


class JobReference(ClusterModel):
    """The child Job, in the RenderJob's namespace."""

    name: Annotated[str, Field(min_length=1, max_length=63)] = Field(description="Name of the child Job.")
    uid: Annotated[str, Field(max_length=64)] | None = Field(None, description="UID of the child Job.")


class ArtifactsStatus(ClusterModel):
    """What is in the object store."""

    count: Items = Field(0, description="Images in the object store.")
    prefix: Annotated[str, Field(max_length=512)] | None = Field(
        None, description="Key prefix of the images in the object store; never a URL."
    )
    manifest_sha256: Annotated[str, Field(max_length=64, pattern="^[0-9a-f]{64}$")] | None = Field(
        None,
        description="SHA-256 of manifest.json, which is stored last and lists every image with its own hash; "
        "absent when no runner wrote it, or none that wrote it could say so.",
    )


class RenderJobStatus(ClusterModel):
    """What the operator observed. Written by the operator alone; holds neither prompts nor URLs."""

    observed_generation: Annotated[int, Field(ge=UNSEEN)] = Field(
        UNSEEN, description="The metadata.generation this status is about; -1: no operator has seen the object yet."
    )
    phase: Phase | None = Field(
        None, description="Where the job is, in one word for people. Programs read the conditions."
    )
    job_id: JobId | None = Field(None, description="The job's id in the REST API: /v1/jobs/{jobId}.")
    attempt: Annotated[int, Field(ge=0, le=10_000)] = Field(
        0, description="How often a runner was started for the job, preempted and evicted ones included."
    )
    start_time: Time | None = Field(
        None, description="When the first runner of the job began its work; stays through suspension and preemption."
    )
    completion_time: Time | None = Field(None, description="When the job succeeded, failed or was canceled.")
    cancel_request_time: Time | None = Field(
        None, description="When a cancel was first seen. It stands from then on, even if spec.cancel is taken back."
    )
    progress: Progress | None = Field(None, description="How far the job is.")
    items: ItemsStatus | None = Field(None, description="Which items ended how.")
    gpu: GPUStatus | None = Field(None, description="The GPU of the last runner and its memory before and after.")
    failure: FailureStatus | None = Field(None, description="Why the job failed; absent otherwise.")
    job_ref: JobReference | None = Field(None, description="The child Job that runs the pods.")
    artifacts: ArtifactsStatus | None = Field(None, description="What is in the object store.")
    conditions: Annotated[list[Condition], Field(max_length=16)] = Field(
        default_factory=list,
        description="Observations, one of each type. Wait on Complete, Failed or Canceled.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )

    def condition(self, kind: ConditionType) -> Condition | None:
        """The condition of this type, if there is one."""
        return next((condition for condition in self.conditions if condition.type == kind), None)

    def is_true(self, kind: ConditionType) -> bool:
        """Whether this condition is there and True."""
        found = self.condition(kind)
        return found is not None and found.status is ConditionStatus.TRUE
