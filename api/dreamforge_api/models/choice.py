"""Which model a job gets: one rule for requests and for RenderJobs; pure."""

from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import RowMapping

from dreamforge.errors import DreamForgeError
from dreamforge.models import EPICREALISM, SKETCH, SKETCH_PROVIDER, BackendMode, ModelKind

SKETCH_WARNING = (
    "Rendered by `sketch`, which is not a diffusion model: no SDXL checkpoint is installed. To get SDXL, start with "
    "`dreamforge up --backend sdxl --model FILE` or set DF_GENERATE_MODEL_PATH to a .safetensors file."
)
#: Said of a job that came with a seed for several items (FR-008).
SEED_IGNORED = "seed is ignored because count is above 1: each item draws its own seed right before it is rendered."


class Choice(NamedTuple):
    """The model a job gets; ``warning`` when it is not what the client may think."""

    model_id: str
    warning: str | None = None


class NoModel(DreamForgeError):
    """There is no model for the job; ``usable`` holds the ids of those there are."""

    def __init__(self, reason: str, usable: Iterable[str]) -> None:
        self.usable = sorted(usable)
        super().__init__(f"{reason}; installed: {', '.join(self.usable) or 'none'}")


def choose(
    registry: Iterable[RowMapping], model_id: str | None, provider: str, mode: BackendMode, configured: str | None
) -> Choice:
    """The model that is asked for, else the default; ``configured`` is the id of a checkpoint placed by hand.

    Raises :class:`NoModel`.
    """
    usable = {row["id"]: row["kind"] for row in registry if row["installed"] and row["enabled"]}
    if model_id is not None:
        if model_id not in usable:
            raise NoModel("No model of this id is installed and enabled", usable)
        return Choice(model_id)
    if mode is BackendMode.SKETCH or provider == SKETCH_PROVIDER:
        return _sketch(usable, None)
    checkpoints = [id_ for id_, kind in usable.items() if kind == ModelKind.SDXL_CHECKPOINT]
    for preferred in (configured, EPICREALISM):
        if preferred is not None and preferred in checkpoints:
            return Choice(preferred)
    if len(checkpoints) == 1:
        return Choice(checkpoints[0])
    if mode is BackendMode.AUTO:
        return _sketch(usable, SKETCH_WARNING)
    raise NoModel("No default model: name one with model_id", usable)


def _sketch(usable: dict[str, str], warning: str | None) -> Choice:
    if SKETCH.id not in usable:
        raise NoModel("The sketch model is switched off", usable)
    return Choice(SKETCH.id, warning)
