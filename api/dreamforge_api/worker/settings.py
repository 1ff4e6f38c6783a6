"""Settings of the worker process, and of retention where it runs by itself."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from dreamforge.models import BackendMode
from dreamforge.renderjob.spec import LabelName
from dreamforge.storage.settings import StorageSettings


class RetentionSettings(StorageSettings):
    """What ``python -m dreamforge_api.worker.retention`` reads."""

    database_url: str = Field(description="PostgreSQL, as postgresql://user:password@host:port/name.")
    log_level: str = Field("INFO", description="Least severe level that is logged.")
    retention_objects_hours: float = Field(
        24, ge=0, description="Images of a job go this long after its end; 0 keeps them for ever."
    )
    retention_events_hours: float = Field(
        168,
        ge=0,
        description="Progress, log lines and artifact events of a job go this long after its end; states and errors "
        "stay with the job. 0 keeps them for ever.",
    )
    retention_jobs_hours: float = Field(
        720, ge=0, description="A job goes with all that is left of it this long after its end; 0 keeps it for ever."
    )
    retention_orphan_grace_hours: float = Field(
        24,
        ge=0,
        description="Objects below a job's prefix that no row names are removed at this age; 0 keeps them for ever.",
    )
    retention_model_events_hours: float = Field(
        2160, ge=0, description="What happened to models is forgotten at this age; 0 keeps it for ever."
    )
    retention_interval_seconds: float = Field(
        300, ge=0, description="Between two passes of retention in the worker; 0 switches them off."
    )


class WorkerSettings(RetentionSettings):
    """What ``python -m dreamforge_api.worker`` reads."""

    redis_url: str = Field(description="Redis, as redis://:password@host:port/0.")
    executor: Literal["local", "kubernetes"] = Field("local", description="Where jobs run.")
    namespace: str = Field(
        "dreamforge-runners",
        max_length=63,
        pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
        description="Namespace of RenderJobs and their pods.",
    )
    kubeconfig: Path | None = Field(
        None,
        validation_alias="KUBECONFIG",
        description="The cluster and its login; unset: the pod's service account.",
    )
    kueue_queue: LabelName | None = Field(
        None, description="Kueue LocalQueue of jobs that come by REST; unset: none."
    )
    runner_backend: BackendMode = Field(
        BackendMode.AUTO, description="Which model a RenderJob gets that names none: the same as the API's."
    )
    generate_model_path: Path | None = Field(
        None, description="An SDXL checkpoint (.safetensors) placed by hand: the same as the API's."
    )
    models_root: Path | None = Field(None, description="Folder that holds model files.")
    models_sync_seconds: float = Field(
        30, gt=0, description="Between two looks at the models root and at a checkpoint placed by hand."
    )
    worker_port: int = Field(
        0, ge=0, le=65535, description="Loopback port for the worker's /healthz and /metrics; 0 switches it off."
    )
    worker_host: str = Field("127.0.0.1", description="Address the worker's /healthz and /metrics bind to.")
    item_timeout_seconds: float = Field(1800, gt=0, description="Longest time one item may take.")
    grace_seconds: float = Field(5, gt=0, description="Between SIGTERM and SIGKILL of a render child.")
    max_attempts: int = Field(3, ge=1, le=10, description="Attempts that count before a job fails for good.")
    max_runner_losses: int = Field(
        2,
        ge=1,
        le=10,
        description="Attempts that count when they end their runner (runner_lost, host_oom); after these the job is "
        "a dead letter, see `dreamforge dlq`. Never more than DF_MAX_ATTEMPTS.",
    )
    silence_seconds: float | None = Field(
        None,
        ge=1,
        description="A dispatched job nobody heard of for this long is looked into; unset: 15, or 60 on a cluster.",
    )
    queue_timeout_seconds: float = Field(
        0, ge=0, description="A job that no runner took for this long fails with job_timeout; 0: until its deadline."
    )
    dispatch_window: int | None = Field(
        None, ge=1, description="Jobs handed to the executor ahead of a runner; unset: 64, or 5000 on a cluster."
    )

    @property
    def silence(self) -> float:
        """On a cluster the operator tells what becomes of a job; the API server is asked where it did not."""
        return self.silence_seconds or (15.0 if self.executor == "local" else 60.0)

    @property
    def window(self) -> int:
        """On a cluster the scheduler orders the queue, so it is told of all that may run soon."""
        return self.dispatch_window or (64 if self.executor == "local" else 5000)
