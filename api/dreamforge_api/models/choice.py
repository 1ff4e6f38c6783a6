"""Which model a job gets: one rule for requests and for RenderJobs; pure."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from sqlalchemy import RowMapping

from dreamforge.errors import DreamForgeError
from dreamforge.models import EPICREALISM, SKETCH, SKETCH_PROVIDER, BackendMode, ModelKind

SKETCH_WARNING = (
    "Rendered by `sketch`, which is not a diffusion model: no SDXL checkpoint is installed. To get SDXL, install one "
    "with `dreamforge model download REF`, or set DF_GENERATE_MODEL_PATH to a .safetensors file."
)
#: Said of a job that came with a seed for several items (FR-008).
SEED_IGNORED = "seed is ignored because count is above 1: each item draws its own seed right before it is rendered."


class Choice(NamedTuple):
    """The model a job gets, with the presets it brings; ``warning`` when it is not what the client may think."""

    model_id: str
    warning: str | None = None
    presets: Mapping[str, Any] = {}


class NoModel(DreamForgeError):
    """There is no model for the job; ``usable`` holds the ids of those there are."""

    def __init__(self, reason: str, usable: Iterable[str]) -> None:
        self.usable = sorted(usable)
        super().__init__(f"{reason}; installed: {', '.join(self.usable) or 'none'}")


def choose(
    registry: Iterable[RowMapping], model_id: str | None, provider: str, mode: BackendMode, configured: str | None
) -> Choice:
    """The model that is asked for, else the default; ``configured`` is the id of a checkpoint placed by hand.

    Of a slug, the version that was registered last. Raises :class:`NoModel`.
    """
    rows = sorted(registry, key=lambda row: row["ordinal"])
    usable = {row["id"]: row for row in rows if row["installed"] and row["enabled"]}
    newest = {row["slug"]: row for row in usable.values()} | usable  # an id wins over a slug
    if model_id is not None:
        if model_id not in newest:
            raise NoModel(_why_not(rows, model_id), usable)
        return _choice(newest[model_id])
    if mode is BackendMode.SKETCH or provider == SKETCH_PROVIDER:
        return _sketch(usable, None)
    checkpoints = [row for row in usable.values() if row["kind"] == ModelKind.SDXL_CHECKPOINT]
    slugs = {row["slug"] for row in checkpoints}
    for preferred in (configured, EPICREALISM, *(slugs if len(slugs) == 1 else ())):
        if preferred is not None and (found := newest.get(preferred)) is not None:
            return _choice(found)
    if checkpoints:
        raise NoModel("There are several models and none is the default: name one with model_id", usable)
    if mode is BackendMode.AUTO:
        return _sketch(usable, SKETCH_WARNING)
    raise NoModel(_why_not(rows, configured or EPICREALISM), usable)


def _choice(row: RowMapping) -> Choice:
    return Choice(row["id"], presets=row["presets"])


def _why_not(rows: Iterable[RowMapping], model_id: str) -> str:
    """Of several versions, the newest one's reason."""
    known = [row for row in rows if model_id in (row["id"], row["slug"])]
    if not known:
        return f"No model {model_id} is installed and enabled"
    row = known[-1]
    if row["installed"]:
        return f"The model {row['id']} is not enabled"
    return f"The model {row['id']} is registered, but not installed: {row['problem'] or 'its files are missing'}"


def _sketch(usable: Mapping[str, RowMapping], warning: str | None) -> Choice:
    if SKETCH.id not in usable:
        raise NoModel("The sketch model is switched off", usable)
    return Choice(SKETCH.id, warning, usable[SKETCH.id]["presets"])
