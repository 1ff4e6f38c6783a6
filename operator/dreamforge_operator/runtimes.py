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

A model that ``dreamforge model download`` put on a models volume needs no entry: ``slug@version`` names its folder
there, and the runner reads what lies in it. An entry by its slug may say which runtime loads it.
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
    hashes: dict[str, Any] | None = Field(
        None,
        description="A volume source that outlives pods, where they remember the sha256 of model files they read, "
        "and keep what torch compiled.",
    )
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
        if found is None or found.path is None:
            return self._installed(model_id)
        return ModelRef(
            id=model_id,
            name=found.name or model_id,
            kind=found.kind.value,
            version=found.version,
            path=found.path,
            sha256=found.sha256,
            size_bytes=found.size_bytes,
        )

    def _installed(self, model_id: str) -> ModelRef | None:
        """A model that lies in a folder of its own on a models volume, which only the runner can see."""
        slug, _, version = model_id.partition("@")
        if not version or not any(runtime.models for runtime in self.runtimes.values()):
            return None
        kind = ModelKind.SDXL_CHECKPOINT.value
        return ModelRef(id=model_id, name=slug, kind=kind, version=version, folder_path=f"{kind}/{model_id}")

    def choose_model(self, asked: str | None, provider: str) -> ModelRef | None:
        """The model that is asked for, else the default: the one named as such, the only one, or sketch."""
        if asked is not None:
            return self.model(asked)
        if provider == SKETCH_PROVIDER:
            return self.model(SKETCH.id)
        only = next(iter(self.models)) if len(self.models) == 1 else SKETCH.id
        return self.model(self.default_model or only)

    def default_id(self, provider: str) -> str | None:
        """The id of what is rendered where no model is named."""
        model = self.choose_model(None, provider)
        return model.id if model else None

    def choose_runtime(self, asked: str | None, model_id: str | None) -> Runtime | None:
        """The runtime that is asked for, else the one that can load the model."""
        name = model_id or SKETCH.id
        entry = self.models.get(name) or self.models.get(name.partition("@")[0])
        return self.runtimes.get(asked or (entry and entry.runtime) or self._runtime_of(name))

    def _runtime_of(self, model_id: str) -> str:
        """The default runtime, unless the model needs a models volume and only others have one."""
        named = [self.default_runtime, *self.runtimes]
        having = [name for name in named if self.runtimes[name].models]
        return self.default_runtime if model_id == SKETCH.id or not having else having[0]


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
