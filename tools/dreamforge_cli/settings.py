"""What the command line reads from the environment and `.env`."""

from pathlib import Path

from pydantic import Field

from dreamforge.models import BackendMode
from dreamforge.settings import DfSettings
from dreamforge.storage.settings import StorageSettings

#: Where earlier tooling of this project put the default checkpoint.
DEFAULT_CHECKPOINT = Path("~/.cache/dream-forge/civitai/epicrealismXL_working.safetensors")


class CliSettings(DfSettings):
    """For the commands that talk to a server."""

    api_base: str = Field(
        default="http://127.0.0.1:8001", pattern=r"^https?://\S+$", description="Server that the commands talk to."
    )


class DlqSettings(DfSettings):
    """`dlq` looks where the jobs and the messages are, not through the API."""

    database_url: str | None = Field(
        default=None,
        pattern=r"^postgres(ql)?(\+psycopg)?://",
        description="PostgreSQL to use; unset: an embedded one.",
    )
    redis_url: str | None = Field(
        default=None, pattern=r"^rediss?://", description="Redis to use; unset: an embedded one."
    )


class DemoSettings(DfSettings):
    """`demo` starts its own stack unless it is pointed at a server."""

    api_base: str | None = Field(
        default=None, pattern=r"^https?://\S+$", description="Server that the commands talk to."
    )


class UpSettings(StorageSettings):
    """For `up`; everything else it leaves to the processes it starts."""

    database_url: str | None = Field(
        default=None,
        pattern=r"^postgres(ql)?(\+psycopg)?://",
        description="PostgreSQL to use; unset: an embedded one.",
    )
    redis_url: str | None = Field(
        default=None, pattern=r"^rediss?://", description="Redis to use; unset: an embedded one."
    )
    runner_backend: BackendMode = Field(
        default=BackendMode.AUTO, description="What renders: auto takes sdxl when a checkpoint is there, else sketch."
    )
    fake_runner: bool = Field(default=False, description="DF_FAKE_RUNNER=1 means DF_RUNNER_BACKEND=sketch.")
    generate_model_path: Path | None = Field(default=None, description="The SDXL checkpoint, one .safetensors file.")
    models_root: Path | None = Field(default=None, description="Folder that holds model files.")
    log_level: str = Field(
        default="INFO",
        pattern=r"(?i)^(debug|info|warning|error)$",
        description="Least severe level that is logged.",
    )
    visible_devices: str | None = Field(
        default=None,
        validation_alias="CUDA_VISIBLE_DEVICES",
        description="GPUs that several runners share out among themselves; unset: all there are.",
    )
    restart_longest_seconds: float = Field(
        default=10, gt=0, description="Longest pause before a process that keeps ending is started again."
    )
