"""The closed words of a RenderJob's state: its phase, its condition types, and the reasons each type may carry.

Phase is derived from the conditions and is for people; programs wait on conditions. ``Ready``, ``Reconciling`` and
``Stalled`` are what kstatus (Flux, Argo CD health checks) reads; ``Stalled`` and ``Reconciling`` are never both True.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from dreamforge.errors import FACTS, ErrorCode
from dreamforge.renderjob.base import ClusterModel, Time


class Phase(StrEnum):
    """Where a RenderJob is, in one word."""

    PENDING = "Pending"
    QUEUED = "Queued"
    STARTING = "Starting"
    RENDERING = "Rendering"
    SUSPENDED = "Suspended"
    CANCELING = "Canceling"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELED = "Canceled"

    @property
    def terminal(self) -> bool:
        """True when nothing may follow."""
        return self in {Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELED}


class ConditionType(StrEnum):
    """What is told of a RenderJob. Each type's reasons are in :data:`REASONS`."""

    ACCEPTED = "Accepted"
    ADMITTED = "Admitted"
    POD_READY = "PodReady"
    GPU_CLEAN = "GPUClean"
    SUSPENDED = "Suspended"
    COMPLETE = "Complete"
    FAILED = "Failed"
    CANCELED = "Canceled"
    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"


class ConditionStatus(StrEnum):
    """The three values a condition may have."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class AcceptedReason(StrEnum):
    """``Accepted``: whether the operator takes the job. True: the first two; False: the rest."""

    VALID = "Valid"
    DELETION_POLICY_IGNORED = "DeletionPolicyIgnored"
    INVALID_INPUT = "InvalidInput"
    UNKNOWN_MODEL = "UnknownModel"
    UNKNOWN_PROVIDER = "UnknownProvider"
    UNKNOWN_RUNTIME = "UnknownRuntime"
    DUPLICATE_JOB_ID = "DuplicateJobId"
    NAME_COLLISION = "NameCollision"
    REFUSED_BY_CLUSTER = "RefusedByCluster"


class AdmittedReason(StrEnum):
    """``Admitted``: whether the job may use the cluster. True: the first two; False: the rest."""

    NOT_QUEUED = "NotQueued"
    QUOTA_RESERVED = "QuotaReserved"
    NOT_YET_SEEN = "NotYetSeen"
    WAITING_FOR_QUOTA = "WaitingForQuota"
    INADMISSIBLE = "Inadmissible"
    NO_WORKLOAD = "NoWorkload"
    PREEMPTED = "Preempted"
    EVICTED = "Evicted"


class PodReadyReason(StrEnum):
    """``PodReady``: whether a runner works. True: ``Running``, ``Finished``; False: what it waits for, or why not."""

    RUNNING = "Running"
    FINISHED = "Finished"
    NOT_CREATED = "NotCreated"
    SCHEDULING = "Scheduling"
    CONTAINER_CREATING = "ContainerCreating"
    UNSCHEDULABLE = "Unschedulable"
    NO_GPU = "NoGPU"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    QUOTA_EXCEEDED = "QuotaExceeded"
    ADMISSION_REFUSED = "AdmissionRefused"
    SECRET_MISSING = "SecretMissing"  # noqa: S105 - a reason, not a secret
    CONFIG_ERROR = "ConfigError"
    VOLUME_NOT_MOUNTED = "VolumeNotMounted"
    MODEL_MISSING = "ModelMissing"
    RETRYING = "Retrying"
    DISRUPTED = "Disrupted"
    FAILED = "Failed"
    STOPPED = "Stopped"


class GPUCleanReason(StrEnum):
    """``GPUClean``: whether the GPU's memory was back at its baseline. True, False, Unknown."""

    VERIFIED = "Verified"
    RESIDUAL_MEMORY = "ResidualMemory"
    NOT_MEASURED = "NotMeasured"


class SuspendedReason(StrEnum):
    """``Suspended``: True as asked by ``spec.suspend``; False: the rest."""

    SUSPEND_REQUESTED = "SuspendRequested"
    NOT_SUSPENDED = "NotSuspended"
    RESUMED = "Resumed"


class CompleteReason(StrEnum):
    """``Complete``: every item's image is stored."""

    SUCCEEDED = "Succeeded"


class FailedReason(StrEnum):
    """``Failed``: what ended the job. The first group says the same as ``status.failure.class``."""

    INVALID_INPUT = "InvalidInput"
    MODEL_MISSING = "ModelMissing"
    MODEL_INVALID = "ModelInvalid"
    GPU_OOM = "GpuOom"
    DISK_FULL = "DiskFull"
    STORAGE_ERROR = "StorageError"
    PROVIDER_ERROR = "ProviderError"
    GPU_FAULT = "GpuFault"
    STOPPED = "Stopped"
    ITEM_TIMEOUT = "ItemTimeout"
    RUNNER_LOST = "RunnerLost"
    HOST_OOM = "HostOom"
    JOB_TIMEOUT = "JobTimeout"
    DISPATCH_REFUSED = "DispatchRefused"
    INTERNAL = "Internal"
    # What only a cluster can tell.
    START_DEADLINE_EXCEEDED = "StartDeadlineExceeded"
    CHILD_JOB_LOST = "ChildJobLost"


class CanceledReason(StrEnum):
    """``Canceled``: ended as asked."""

    CANCELED = "Canceled"


class ReadyReason(StrEnum):
    """``Ready``: the phase again, since this is the condition that people's tools print."""

    PENDING = "Pending"
    QUEUED = "Queued"
    STARTING = "Starting"
    RENDERING = "Rendering"
    SUSPENDED = "Suspended"
    CANCELING = "Canceling"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELED = "Canceled"


class ReconcilingReason(StrEnum):
    """``Reconciling``: True while the operator works towards an end; False: finished, suspended or stalled."""

    PROGRESSING = "Progressing"
    FINISHED = "Finished"
    SUSPENDED = "Suspended"


class StalledReason(StrEnum):
    """``Stalled``: True when the job failed for good."""

    FAILED = "Failed"
    NOT_STALLED = "NotStalled"


#: The reasons each condition type may carry.
REASONS: dict[ConditionType, type[StrEnum]] = {
    ConditionType.ACCEPTED: AcceptedReason,
    ConditionType.ADMITTED: AdmittedReason,
    ConditionType.POD_READY: PodReadyReason,
    ConditionType.GPU_CLEAN: GPUCleanReason,
    ConditionType.SUSPENDED: SuspendedReason,
    ConditionType.COMPLETE: CompleteReason,
    ConditionType.FAILED: FailedReason,
    ConditionType.CANCELED: CanceledReason,
    ConditionType.READY: ReadyReason,
    ConditionType.RECONCILING: ReconcilingReason,
    ConditionType.STALLED: StalledReason,
}

#: Error classes a job on a cluster can end with: all but those that only an HTTP caller sees.
FAILURE_CLASSES = tuple(
    code for code, facts in FACTS.items() if facts.exit_code is not None or facts.http_status is None
)


def failed_reason(code: ErrorCode) -> FailedReason:
    """The ``Failed`` reason that says what an error class says. Raises ``KeyError`` for HTTP-only classes."""
    return FailedReason[code.name]


class Condition(ClusterModel):
    """One observation about a RenderJob, in the form all of Kubernetes uses (``metav1.Condition``).

    Type and reason are plain text here, so that an object which another release wrote can be read.
    """

    type: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z]([A-Za-z0-9_.-]*[A-Za-z0-9])?$")] = (
        Field(
            description="What is observed: Accepted, Admitted, PodReady, GPUClean, Suspended, Complete, Failed, ..."
        )
    )
    status: ConditionStatus = Field(description="True, False or Unknown.")
    observed_generation: Annotated[int, Field(ge=-1)] | None = Field(
        None, description="The metadata.generation this was observed at; lower than the object's: out of date."
    )
    last_transition_time: Time = Field(description="When the status last changed.")
    reason: Annotated[
        str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")
    ] = Field(description="Why, as one word that programs can match.")
    message: Annotated[str, Field(max_length=4096)] = Field(
        "", description="Why, in a sentence for people: what happened, and what to do. Never holds a prompt."
    )
