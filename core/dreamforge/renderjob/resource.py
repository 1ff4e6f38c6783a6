"""A ``RenderJob`` as a program reads it from an API server."""

from datetime import datetime
from uuid import UUID

from pydantic import Field

from dreamforge.renderjob import names
from dreamforge.renderjob.base import ClusterModel
from dreamforge.renderjob.spec import RenderJobSpec
from dreamforge.renderjob.status import RenderJobStatus


class ObjectMeta(ClusterModel):
    """The part of ``metadata`` that we look at."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class RenderJob(ClusterModel):
    """A render job: one or more images from one prompt, rendered by pods on this cluster."""

    api_version: str = names.API_VERSION
    kind: str = names.KIND
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: RenderJobSpec
    status: RenderJobStatus = Field(default_factory=RenderJobStatus)

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name: what a queue of work holds."""
        return self.metadata.namespace, self.metadata.name

    @property
    def job_id(self) -> UUID:
        """The job's id in Postgres and REST: the one the API set, else one drawn from uid and creation."""
        if self.spec.job_id is not None:
            return self.spec.job_id
        created = self.metadata.creation_timestamp
        if created is None:
            raise ValueError("an object that no API server has stored has no job id")
        return names.job_id_of(self.metadata.uid, created)

    @property
    def child_name(self) -> str:
        """The one name its child Job may have."""
        return names.child_name(self.metadata.name, self.metadata.uid)

    @property
    def canceled(self) -> bool:
        """Whether a cancel is asked for, now or at any time before."""
        return self.spec.cancel or self.status.cancel_request_time is not None

    @property
    def git_managed(self) -> bool:
        """Whether Flux or Argo CD would make it again if it were deleted."""
        return (
            names.FLUX_NAME_LABEL in self.metadata.labels
            or names.ARGO_TRACKING_ANNOTATION in self.metadata.annotations
        )
