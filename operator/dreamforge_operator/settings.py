"""Settings of the operator process."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from dreamforge.settings import DfSettings

_NAME = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"


class OperatorSettings(DfSettings):
    """Where the operator works, what its pods are made of, and how often it looks without being told to."""

    namespace: str = Field(
        default="dreamforge-runners", pattern=_NAME, description="Namespace of the RenderJobs and of their pods."
    )
    runner_image: str = Field(
        default="dreamforge-runner:dev",
        min_length=1,
        max_length=512,
        description="Image of runner pods, unless the runtime names its own.",
    )
    runner_env_secret: str | None = Field(
        default=None,
        pattern=_NAME,
        description="Secret in the namespace whose keys become the runner's environment; never read by the operator.",
    )
    runtimes_file: Path | None = Field(
        default=None,
        description="YAML or JSON file with named pod templates (runtimes) and the models they can load.",
    )
    redis_url: str | None = Field(
        default=None,
        description="Redis that announces jobs made with kubectl and carries item progress; without it both stop.",
    )
    operator_workers: Annotated[int, Field(ge=1, le=128)] = Field(
        default=64, description="RenderJobs that are reconciled at the same time."
    )
    operator_pass_seconds: Annotated[float, Field(gt=0, le=60)] = Field(
        default=15, description="Seconds between full passes over all RenderJobs."
    )
    operator_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=8080, description="Port of the operator's /healthz, /readyz and /metrics; 0 serves none."
    )
    operator_host: str = Field(default="0.0.0.0", description="Address the operator's port is bound to.")  # noqa: S104 - a pod's probes come from the node
    log_level: str = Field(
        default="INFO", pattern=r"^(?i:DEBUG|INFO|WARNING|ERROR)$", description="DEBUG, INFO, WARNING or ERROR."
    )
