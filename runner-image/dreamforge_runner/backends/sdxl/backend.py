"""SDXL behind the backend port: checks the model's files first, and only then pays for importing torch."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreamforge.errors import ErrorCode, JobError
from dreamforge.spec import ModelRef, RenderParams
from dreamforge_runner import checkpoint
from dreamforge_runner.backends.base import Item, Memory, Notice, OnStep, Pixels

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

    def __init__(
        self, *, config_dir: Path | None = None, hash_cache: Path | None = None, compile_blocks: bool = False
    ) -> None:
        """``config_dir``: pipeline configuration when it is not beside the checkpoint. ``hash_cache``: a folder.

        ``compile_blocks``: compile the UNet's repeated blocks on CUDA; the first item then takes many seconds more.
        """
        self._config_dir = config_dir
        self._hash_cache = hash_cache
        self._compile_blocks = compile_blocks
        self._engine: Engine | None = None

    def load(self, model: ModelRef) -> None:
        if model.path is None:
            raise JobError(ErrorCode.MODEL_MISSING, f"the model {model.id} has no checkpoint file")
        info = checkpoint.inspect(Path(model.path))
        checkpoint.verify(model, info, self._hash_cache)
        config = checkpoint.find_config(info.path, self._config_dir)
        if self._engine is None:
            self._engine = _import_engine(self._compile_blocks)
        self._engine.load(info.path, config)

    def begin(self, params: RenderParams) -> Sequence[Notice]:
        return self._loaded().begin(params)

    def denoise(self, item: Item, on_step: OnStep) -> Any:
        return self._loaded().denoise(item, on_step)

    def decode(self, latents: Any) -> Pixels:
        return self._loaded().decode(latents)

    def end(self) -> Memory | None:
        return None if self._engine is None else self._engine.end()

    def _loaded(self) -> "Engine":
        if self._engine is None:
            raise JobError(ErrorCode.INTERNAL, "the sdxl backend was used before load()")
        return self._engine


def _import_engine(compile_blocks: bool) -> "Engine":
    os.environ.update(_LIBRARY_ENVIRONMENT)
    from dreamforge_runner.backends.sdxl.engine import Engine  # noqa: PLC0415 - seconds of import; after the checks

    return Engine(compile_blocks=compile_blocks)
