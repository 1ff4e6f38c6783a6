"""Settings of the API process: ``DF_*`` variables, each with its meaning."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator

from dreamforge.db.engine import parse_url
from dreamforge.models import BackendMode
from dreamforge.settings import DfSettings

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


class ApiSettings(DfSettings):
    """What the API needs to know about itself and the parts it talks to."""

    api_host: str = Field("127.0.0.1", description="Address the API listens on.")
    api_port: int = Field(8001, ge=0, le=65535, description="Port the API listens on.")
    api_public_url: str | None = Field(
        None,
        pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$",
        description="Origin that clients reach the API by; put before links of the filesystem store.",
    )
    database_url: SecretStr = Field(description="PostgreSQL, as postgresql://user:password@host:port/name.")
    redis_url: SecretStr = Field(SecretStr("redis://127.0.0.1:6379/0"), description="Redis, as redis://host:port/db.")
    database_pool_size: int = Field(
        10,
        ge=1,
        le=200,
        description="Database connections of one API process: so many for creates, and so many for all else.",
    )
    max_queued: int = Field(1000, ge=1, le=100_000, description="Queued jobs above which new ones get 429.")
    idempotency_window_seconds: int = Field(
        86_400, ge=1, le=30 * 86_400, description="How long an Idempotency-Key is remembered."
    )
    job_deadline_seconds: int = Field(
        86_400, ge=1, le=30 * 86_400, description="How long after its creation a job must have ended."
    )
    runner_backend: BackendMode = Field(
        BackendMode.AUTO, description="auto: SDXL when a checkpoint is registered, else sketch."
    )
    fake_runner: bool = Field(False, description="An older name for DF_RUNNER_BACKEND=sketch.")
    generate_model_path: Path | None = Field(
        None, description="An SDXL checkpoint (.safetensors) placed by hand, registered at start."
    )
    executor: Literal["local", "kubernetes"] = Field("local", description="Where jobs run.")
    sse_max_streams: int = Field(2000, ge=1, description="Open event streams of one API process; more get 429.")
    sse_heartbeat_seconds: float = Field(15, gt=0, description="Silence after which a stream sends a comment.")
    sse_send_timeout_seconds: float = Field(10, gt=0, description="A reader that takes nothing this long is dropped.")
    sse_window_events: int = Field(5000, ge=100, description="Newest events of a job kept in memory while streamed.")
    sse_lag_events: int = Field(
        200, ge=10, description="Frames a live reader may lag before superseded progress is skipped."
    )
    docs: bool = Field(True, description="Serve /docs and /redoc.")
    log_level: LogLevel = Field("INFO", description="Least severe level that is logged.")
    prometheus_multiproc_dir: Path | None = Field(
        None,
        validation_alias="PROMETHEUS_MULTIPROC_DIR",
        description="Folder through which the processes of one machine share their metrics.",
    )

    @model_validator(mode="after")
    def _urls_are_readable(self) -> Self:
        parse_url(self.database_url.get_secret_value())
        if not self.redis_url.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("DF_REDIS_URL: must start with redis://, rediss:// or unix://")
        return self

    @property
    def backend(self) -> BackendMode:
        """The backend mode with the older flag taken into account."""
        return BackendMode.SKETCH if self.fake_runner else self.runner_backend
