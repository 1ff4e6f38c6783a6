"""What a person or the API asks for in a RenderJob, with the rules an API server keeps about it.

Bounds and defaults that REST has too come from :mod:`dreamforge.spec`. Rules in CEL that look at more than one
field stand on the spec, because the API server refuses a default of ``{}`` on an object with a rule of its own.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from dreamforge.models import DEFAULT_PROVIDER, MAX_ID
from dreamforge.renderjob import names
from dreamforge.renderjob.base import ClusterModel
from dreamforge.renderjob.status import JobId
from dreamforge.spec import Count, ImageParams, Limits, RenderParams

_LABEL = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"
_SUBDOMAIN = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$"
_DATA_KEY = "^[A-Za-z0-9_-][A-Za-z0-9._-]*$"
_WORD = "^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"
_MODEL_ID = rf"{_WORD[:-1]}(@{_WORD[1:-1]})?$"
_EXTENDED_RESOURCE = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?/[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"

LabelName = Annotated[str, Field(min_length=1, max_length=63, pattern=_LABEL)]
ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=_SUBDOMAIN)]
Word = Annotated[str, Field(min_length=1, max_length=128, pattern=_WORD)]

WEEK = 7 * 86_400
MONTH = 30 * 86_400


class RenderInput(ImageParams):
    """What to render: the parameters of a REST request, in camel case. How many images is said in ``batch``."""

    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, validate_by_alias=True, extra="ignore", strict=True
    )

    def manifest(self) -> dict[str, Any]:
        """JSON-ready, with the cluster's field names; what was never set is left to the schema's defaults."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)


class InputSecretRef(ClusterModel):
    """The Secret that holds the render spec, so that prompts stay out of this object."""

    name: ObjectName = Field(description="Name of a Secret in this namespace.")
    key: Annotated[str, Field(min_length=1, max_length=253, pattern=_DATA_KEY)] = Field(
        names.INPUT_KEY, description="Key in the Secret whose value is the render spec, as JSON."
    )


class ModelReference(ClusterModel):
    """The model to render with."""

    id: Annotated[str, Field(min_length=1, max_length=MAX_ID, pattern=_MODEL_ID)] = Field(
        description="Id in the model registry, as GET /v1/models lists it; slug@version for installed models."
    )


class RuntimeReference(ClusterModel):
    """A pod template that belongs to the platform: image, volumes, resources and service account."""

    name: LabelName = Field(description="One of the runtimes that the operator was set up with.")


class Batch(ClusterModel):
    """How many images, and by how many pods."""

    count: Count = Field(1, description="Images to render.")
    shards: Count = Field(
        1,
        description=(
            "Pods that share the images; not more than count. With 1, one pod renders them all and loads its model "
            "once; with n, pod k renders the items k, k+n, k+2n and so on."
        ),
    )


class Queue(ClusterModel):
    """The Kueue queue that decides when the job may run."""

    name: LabelName = Field(description="A Kueue LocalQueue in this namespace.")
    priority_class_name: ObjectName | None = Field(
        None, description="A Kueue WorkloadPriorityClass. May be changed while the job waits or runs, not removed."
    )


class GPU(ClusterModel):
    """What each pod asks the cluster for."""

    resource_name: Annotated[str, Field(min_length=3, max_length=253, pattern=_EXTENDED_RESOURCE)] = Field(
        names.DEFAULT_GPU_RESOURCE, description="The extended resource that a device plugin offers."
    )
    count: Annotated[int, Field(ge=0, le=16)] = Field(
        1, description="How many of it each pod gets; 0 asks for none (sketch renders without a GPU)."
    )
    runtime_class_name: ObjectName | None = Field(
        None, description="RuntimeClass of the pods, where the GPU needs one (K3S: nvidia)."
    )
    resource_claim_template_name: ObjectName | None = Field(
        None,
        description="A DRA ResourceClaimTemplate in this namespace; used instead of the extended resource.",
    )


class JobLimits(ClusterModel):
    """The clocks of the job."""

    start_deadline_seconds: Annotated[int, Field(ge=1, le=MONTH)] = Field(
        86_400, description="Seconds from its creation within which the first pod must run, or the job fails."
    )
    active_deadline_seconds: Annotated[int, Field(ge=1, le=WEEK)] = Field(
        86_400, description="Seconds the job may run, not counting time it waits in a queue or is suspended."
    )
    item_timeout_seconds: Annotated[int, Field(ge=1, le=WEEK)] = Field(
        int(Limits().item_timeout_seconds), description="Seconds one image may take."
    )
    grace_seconds: Annotated[int, Field(ge=1, le=600)] = Field(
        int(Limits().grace_seconds), description="Seconds a runner has to stop when it is told to."
    )


class Retry(ClusterModel):
    """What happens after a failure that a retry may mend."""

    backoff_limit: Annotated[int, Field(ge=0, le=10)] = Field(
        2, description="Retries of each shard. Preemption and eviction do not count."
    )


class DeletionPolicy(StrEnum):
    """What becomes of a finished RenderJob when its time is up."""

    RETAIN = "Retain"
    DELETE_SELF = "DeleteSelf"


class RenderJobSpec(ClusterModel):
    """What is asked for. All but suspend, cancel, ttlSecondsAfterFinished, deletionPolicy and queue.priorityClassName
    is fixed once the RenderJob exists."""

    job_id: JobId | None = Field(
        None, description="Id of the job in the REST API, set by the API; absent: one is drawn, see status.jobId."
    )
    provider: Word = Field(DEFAULT_PROVIDER, description="Who renders.")
    model_ref: ModelReference | None = Field(
        None, description="The model to render with; absent: the platform's default for the provider."
    )
    runtime_ref: RuntimeReference | None = Field(
        None, description="The pod template to use, by name; absent: the platform's default."
    )
    input: RenderInput | None = Field(
        None, description="What to render. Exactly one of input and inputSecretRef must be set."
    )
    input_secret_ref: InputSecretRef | None = Field(
        None,
        description=(
            "What to render, kept in a Secret so that prompts stay out of this object. Exactly one of input and "
            "inputSecretRef must be set."
        ),
    )
    batch: Batch = Field(default_factory=Batch, description="How many images, and by how many pods.")
    suspend: bool = Field(
        False, description="Stop the pods and keep what is done; false again goes on from the first missing image."
    )
    cancel: bool = Field(
        False, description="End the job for good. Once seen this stands, even if it is set to false again."
    )
    queue: Queue | None = Field(
        None, description="The Kueue queue that decides when the job may run; absent: at once."
    )
    gpu: GPU = Field(default_factory=GPU, description="What each pod asks the cluster for.")
    limits: JobLimits = Field(default_factory=JobLimits, description="The clocks of the job.")
    retry: Retry = Field(default_factory=Retry, description="What happens after a failure that a retry may mend.")
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=MONTH)] = Field(
        3600,
        description=(
            "Seconds after its end when the child Job and its pods are removed. The RenderJob stays, unless "
            "deletionPolicy says otherwise."
        ),
    )
    deletion_policy: DeletionPolicy = Field(
        DeletionPolicy.RETAIN,
        description=(
            "Retain keeps the small finished RenderJob. DeleteSelf removes it with its children; it is not followed "
            "on objects that Flux or Argo CD manages, since they would be made again."
        ),
    )
    managed_by: Literal["dreamforge.dev/operator", "kueue.x-k8s.io/multikueue"] = Field(
        "dreamforge.dev/operator",
        description="Who acts on this object; an operator leaves alone what is not its own.",
    )

    def params(self) -> RenderParams | None:
        """The parameters of inline input with the batch's count; ``None`` when a Secret holds them."""
        if self.input is None:
            return None
        return RenderParams(**self.input.model_dump(), count=self.batch.count)
