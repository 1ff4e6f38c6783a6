"""Settings of the runner process."""

import importlib.util
import socket
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from dreamforge import models_root
from dreamforge.errors import ConfigurationError
from dreamforge.models import BackendMode, ModelKind
from dreamforge.settings import DfSettings

_TARGET = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"


class RunnerSettings(DfSettings):
    """How a runner gets work, where it keeps unsent events, and how long it waits."""

    redis_url: str | None = Field(
        default=None, description="Redis that carries events and work; `once` prints events when it is unset."
    )
    runner_backend: BackendMode = Field(
        default=BackendMode.AUTO,
        description="What `serve` imports before the first job: `auto` takes sdxl when a checkpoint is configured.",
    )
    fake_runner: bool = Field(default=False, description="1 means DF_RUNNER_BACKEND=sketch.")
    models_root: Path | None = Field(default=None, description="Folder that holds model files.")
    generate_model_path: Path | None = Field(
        default=None, description="The SDXL checkpoint (.safetensors) that `generate` jobs use by default."
    )
    runner_plugins: dict[str, Annotated[str, Field(pattern=_TARGET)]] = Field(
        default_factory=dict, description='Further backends: JSON object from model kind to "module:Class".'
    )
    spool_dir: Path = Field(
        default=Path(".dreamforge/spool"), description="Folder of events that are not yet safe in Postgres."
    )
    attempt_id: str | None = Field(
        default=None,
        max_length=56,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Identity of the attempt that `once` makes (the pod's UID); drawn when unset.",
    )
    completion_index: int | None = Field(
        default=None,
        ge=0,
        validation_alias="JOB_COMPLETION_INDEX",
        description="Which shard of the spec `once` renders (set in the pods of an Indexed Job); the spec's own when "
        "unset.",
    )
    runner_name: str | None = Field(
        default=None,
        max_length=256,
        description="What events call this runner (the pod's name); the host's when unset.",
    )
    termination_log: Path | None = Field(
        default=None, description="File that `once` writes its JSON verdict to (a pod's termination message)."
    )
    load_timeout_seconds: float = Field(default=600, gt=0, description="Bound on importing and loading a model.")
    cancel_grace_seconds: float = Field(
        default=2,
        gt=0,
        description="From asking the render child to stop to SIGTERM, and from there to SIGKILL, in seconds.",
    )
    ack_timeout_seconds: float = Field(
        default=30, ge=0, description="How long `once` waits at its end for events to be safe in Postgres."
    )
    log_level: str = Field(
        default="INFO", pattern=r"^(?i:DEBUG|INFO|WARNING|ERROR)$", description="DEBUG, INFO, WARNING or ERROR."
    )
    visible_devices: str | None = Field(
        default=None,
        validation_alias="CUDA_VISIBLE_DEVICES",
        description="GPUs by index, in PCI order, or by UUID: a runner renders on the first and measures it; several "
        "runners of one `dreamforge up` share them out. Unset: all there are.",
    )

    @model_validator(mode="after")
    def _sdxl_needs_a_checkpoint(self) -> "RunnerSettings":
        if self.backend is BackendMode.SDXL and not self.has_checkpoint:
            given = {"DF_GENERATE_MODEL_PATH": self.generate_model_path, "DF_MODELS_ROOT": self.models_root}
            where = ", ".join(f"{name}={path if path else '(not set)'}" for name, path in given.items())
            raise ValueError(f"DF_RUNNER_BACKEND: sdxl needs a checkpoint; looked at {where}")
        return self

    @property
    def name(self) -> str:
        """What events call this runner."""
        return self.runner_name or socket.gethostname()[:256]

    @property
    def has_checkpoint(self) -> bool:
        """A checkpoint was placed by hand or installed; installed ones count by their descriptor."""
        if self.generate_model_path is not None and self.generate_model_path.is_file():
            return True
        found = models_root.scan(self.models_root) if self.models_root is not None else ()
        return any(one.problem is None and one.model and one.model.kind is ModelKind.SDXL_CHECKPOINT for one in found)

    @property
    def backend(self) -> BackendMode:
        """The mode that counts, after the older variable."""
        return BackendMode.SKETCH if self.fake_runner else self.runner_backend

    @property
    def prewarm_sdxl(self) -> bool:
        """Whether the first job is likely to be SDXL's; an image without its libraries may see models too."""
        if self.backend is BackendMode.AUTO:
            return self.has_checkpoint and importlib.util.find_spec("diffusers") is not None
        return self.backend is BackendMode.SDXL

    def require_redis(self) -> str:
        """The Redis URL, for a process that can't do without."""
        if not self.redis_url:
            raise ConfigurationError("DF_REDIS_URL: is required by `serve` and not set")
        return self.redis_url
