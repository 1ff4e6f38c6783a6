"""SDXL behind the backend port: checks the model's files before the libraries see them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreamforge.checkpoints import configuration, digest, sdxl
from dreamforge.errors import ErrorCode, JobError
from dreamforge.settings import load
from dreamforge.spec import ModelRef, RenderParams
from dreamforge_runner.backends.base import Item, Memory, Notice, OnStep, Pixels
from dreamforge_runner.backends.sdxl.settings import SdxlSettings

if TYPE_CHECKING:
    from dreamforge_runner.backends.sdxl.engine import Engine

#: The libraries read these once, at import: no network, no telemetry, nothing printed between our own lines.
_LIBRARY_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "DIFFUSERS_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


class SdxlBackend:
    """Renders one ``sdxl-checkpoint`` model at a time; ``load`` drops the one before."""

    name = "sdxl"
    digital_source_type = "trainedAlgorithmicMedia"

    def __init__(self, settings: SdxlSettings | None = None) -> None:
        """Import torch and diffusers, which takes seconds: whoever makes a backend early has a warm one."""
        self._settings = settings or load(SdxlSettings)
        self._engine = _import_engine(self._settings.sdxl_compile)

    def load(self, model: ModelRef) -> str:
        if model.path is None:
            raise JobError(ErrorCode.MODEL_MISSING, f"the model {model.id} has no checkpoint file")
        info = sdxl.inspect(Path(model.path))
        sdxl.verify(model, info, self._settings.hash_cache_path)
        self._engine.load(info.path, configuration.find(info.path, self._settings.sdxl_config_path))
        return digest.sha256(info.path, self._settings.hash_cache_path)

    def begin(self, params: RenderParams) -> Sequence[Notice]:
        return self._engine.begin(params)

    def denoise(self, item: Item, on_step: OnStep) -> Any:
        return self._engine.denoise(item, on_step)

    def decode(self, latents: Any) -> Pixels:
        return self._engine.decode(latents)

    def end(self) -> Memory | None:
        return self._engine.end()


def _import_engine(compile_blocks: bool) -> "Engine":
    os.environ.update(_LIBRARY_ENVIRONMENT)
    from dreamforge_runner.backends.sdxl.engine import Engine  # noqa: PLC0415 - reads that environment

    return Engine(compile_blocks=compile_blocks)
