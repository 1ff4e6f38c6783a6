"""Named pod templates and the models they can load: what the platform decides and a RenderJob only names.

The file is YAML or JSON::

    defaultRuntime: sdxl
    defaultModel: sdxl-epicrealism-xl
    runtimes:
      sdxl:
        image: registry.example/dreamforge-runner:1
        resources: {requests: {cpu: "2", memory: 12Gi}, limits: {memory: 16Gi}}
        models: {persistentVolumeClaim: {claimName: models, readOnly: true}}
    models:
      sdxl-epicrealism-xl: {kind: sdxl-checkpoint, path: /models/epicrealism.safetensors, runtime: sdxl}
"""

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from dreamforge.errors import ConfigurationError
from dreamforge.models import SKETCH, SKETCH_PROVIDER, ModelKind
from dreamforge.spec import ModelRef

DEFAULT_RUNTIME = "default"


class _FromFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class Resources(_FromFile):
    """What a pod asks for besides its GPU. Kueue and quotas count requests."""

    requests: dict[str, str] = Field(default_factory=lambda: {"cpu": "500m", "memory": "1Gi"})
    limits: dict[str, str] = Field(default_factory=lambda: {"cpu": "4", "memory": "16Gi"})


class Runtime(_FromFile):
    """A pod template."""

    image: str | None = None
    image_pull_policy: str | None = None
    image_pull_secrets: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict)
    resources: Resources = Resources()
    models: dict[str, Any] | None = Field(None, description="A volume source; mounted read-only at `modelsPath`.")
    models_path: str = "/models"
    scratch_size: str = "2Gi"
    spool_size: str = "256Mi"
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: tuple[dict[str, Any], ...] = ()
    priority_class_name: str | None = None
    runtime_class_name: str | None = None
    service_account_name: str | None = None


class Model(_FromFile):
    """A model that pods find on their models volume."""

    kind: ModelKind
    name: str = ""
    version: str = "1"
    path: str | None = None
    sha256: str | None = None
    size_bytes: int | None = None
    runtime: str | None = Field(None, description="The runtime that can load it; else the default one.")


class Runtimes(_FromFile):
    """All the platform offers."""

    runtimes: dict[str, Runtime] = Field(default_factory=lambda: {DEFAULT_RUNTIME: Runtime()})
    models: dict[str, Model] = Field(default_factory=dict)
    default_runtime: str = DEFAULT_RUNTIME
    default_model: str | None = None

    @model_validator(mode="after")
    def _names_exist(self) -> "Runtimes":
        named = [self.default_runtime, *(model.runtime for model in self.models.values() if model.runtime)]
        for name in named:
            if name not in self.runtimes:
                raise ValueError(f"runtime {name!r} is named but not defined")
        if self.default_model is not None and self.model(self.default_model) is None:
            raise ValueError(f"model {self.default_model!r} is the default but not defined")
        return self

    def model(self, model_id: str) -> ModelRef | None:
        """The model of that id as a runner is told of it."""
        if model_id == SKETCH.id:
            return ModelRef(id=SKETCH.id, name=SKETCH.name, kind=SKETCH.kind.value, version=SKETCH.version)
        found = self.models.get(model_id)
        if found is None:
            return None
        return ModelRef(
            id=model_id,
            name=found.name or model_id,
            kind=found.kind.value,
            version=found.version,
            path=found.path,
            sha256=found.sha256,
            size_bytes=found.size_bytes,
        )

    def choose_model(self, asked: str | None, provider: str) -> ModelRef | None:
        """The model that is asked for, else the default: the one named as such, the only one, or sketch."""
        if asked is not None:
            return self.model(asked)
        if provider == SKETCH_PROVIDER:
            return self.model(SKETCH.id)
        only = next(iter(self.models)) if len(self.models) == 1 else SKETCH.id
        return self.model(self.default_model or only)

    def choose_runtime(self, asked: str | None, model_id: str | None) -> Runtime | None:
        """The runtime that is asked for, else the one that can load the model."""
        model = self.models.get(model_id or "")
        return self.runtimes.get(asked or (model and model.runtime) or self.default_runtime)


def load(path: Path | None) -> Runtimes:
    """What the file offers; without a file, sketch on the default image. Raises ``ConfigurationError``."""
    if path is None:
        return Runtimes()
    try:
        return Runtimes.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except OSError as error:
        raise ConfigurationError(f"DF_RUNTIMES_FILE: {path} can't be read: {error.strerror}") from error
    except yaml.YAMLError:
        raise ConfigurationError(f"DF_RUNTIMES_FILE: {path} is neither YAML nor JSON") from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigurationError(f"DF_RUNTIMES_FILE: {path}: {where}: {message}") from None
