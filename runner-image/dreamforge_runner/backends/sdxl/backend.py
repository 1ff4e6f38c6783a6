"""SDXL behind the backend port: checks the model's files before the libraries see them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreamforge.checkpoints import configuration, converted, digest, place, sdxl
from dreamforge.checkpoints.refusals import invalid
from dreamforge.errors import ErrorCode, JobError
from dreamforge.events import AllocatorMemory, Level
from dreamforge.settings import load
from dreamforge.spec import ModelRef, RenderParams
from dreamforge_runner import prefetch
from dreamforge_runner.backends.base import Item, Notice, OnStep, Pixels
from dreamforge_runner.backends.sdxl.libraries import prepare_environment
from dreamforge_runner.backends.sdxl.plan_settings import PlanSettings
from dreamforge_runner.backends.sdxl.settings import SdxlSettings

if TYPE_CHECKING:
    from dreamforge_runner.backends.sdxl.engine import Engine


class SdxlBackend:
    """Renders one ``sdxl-checkpoint`` model at a time; ``load`` drops the one before."""

    name = "sdxl"
    digital_source_type = "trainedAlgorithmicMedia"

    def __init__(self, settings: SdxlSettings | None = None, plan: PlanSettings | None = None) -> None:
        """Import torch and diffusers, which takes seconds: whoever makes a backend early has a warm one."""
        self._settings = settings or load(SdxlSettings)
        self._engine = _import_engine(plan or load(PlanSettings))

    @property
    def micro_batch(self) -> int:
        return self._engine.plan.micro_batch

    def load(self, model: ModelRef) -> str:
        if model.path is None:
            raise JobError(ErrorCode.MODEL_MISSING, f"the model {model.id} has no checkpoint file")
        path = Path(model.path)
        return self._load_converted(model, path) or self._load_checkpoint(model, path)

    def _load_checkpoint(self, model: ModelRef, path: Path) -> str:
        before = _state(path)
        info = sdxl.inspect(path)
        checkpoint_hash = sdxl.verify(model, info, *self._memories(path))
        place.check_companions(path.parent)
        self._engine.load(path, configuration.find(path, self._settings.sdxl_config_path))
        if _state(path) != before:
            raise JobError(ErrorCode.MODEL_INVALID, f"the checkpoint {path} was changed while it was loaded")
        return checkpoint_hash

    def _load_converted(self, model: ModelRef, path: Path) -> str | None:
        """Load the checkpoint's converted files, if it has some; ``None`` after saying why it has to do itself."""
        found = converted.described(path)
        if found is None or found.conversion is None:
            return None
        checkpoint_hash = found.checkpoint.sha256
        why: str | None = "the registered sha256 is that of another checkpoint"
        if model.sha256 in (None, checkpoint_hash):
            dtype = self._engine.plan.dtype.value
            why = converted.why_not(path.parent, found.conversion, checkpoint_hash, dtype, self._memories(path))
        why = why or self._try_converted(path)
        if why is None:
            return checkpoint_hash
        if not found.original_kept:
            raise invalid(f"the converted files of {found.id} can't be used, and its checkpoint was not kept: {why}")
        message = f"The converted files of {found.id} are not used: {why}"
        self._engine.tell(Notice("model.conversion_ignored", message, Level.WARNING))
        return None

    def _try_converted(self, path: Path) -> str | None:
        """Why the libraries don't take the files."""
        files = converted.paths(path)
        before = [_state(file) for file in files]
        prefetch.hint(*files)
        place.check_companions(path.parent)
        config = configuration.find(path, self._settings.sdxl_config_path)
        try:
            self._engine.load_converted(path.parent, config)
        except JobError as error:
            if error.code is not ErrorCode.MODEL_INVALID:
                raise
            return error.message
        return None if [_state(file) for file in files] == before else "they were changed while they were loaded"

    def _memories(self, path: Path) -> list[Path | None]:
        """Where the file's sha256 may be known: beside the models, which may be read-only here, and of our own."""
        root = self._settings.models_root
        below = root is not None and path.absolute().is_relative_to(root.absolute())
        return [digest.memory_of(root) if root and below else None, self._settings.hash_cache_path]

    def begin(self, params: RenderParams) -> Sequence[Notice]:
        return self._engine.begin(params)

    def denoise(self, item: Item, on_step: OnStep) -> Any:
        return self._engine.denoise([item], on_step)[0]

    def denoise_many(self, items: Sequence[Item], on_step: OnStep) -> Sequence[Any]:
        return self._engine.denoise(items, on_step)

    def warm_up(self) -> Sequence[Notice]:
        return self._engine.warm_up()

    def decode(self, latents: Any) -> Pixels:
        return self._engine.decode(latents)

    def end(self) -> AllocatorMemory | None:
        return self._engine.end()


def _state(path: Path) -> tuple[int, ...] | None:
    """Which bytes the path stands for now; ``None`` where it can't be reached, which ``inspect`` explains."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _import_engine(settings: PlanSettings) -> "Engine":
    prepare_environment()
    from dreamforge_runner.backends.sdxl.engine import Engine  # noqa: PLC0415 - reads that environment

    return Engine(settings)
