"""What `up` renders with: decided once, at start, and said aloud."""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dreamforge import models_root
from dreamforge.errors import ConfigurationError
from dreamforge.models import BackendMode, ModelKind
from dreamforge_cli.settings import DEFAULT_CHECKPOINT

_LIBRARIES = ("torch", "diffusers", "transformers", "accelerate", "safetensors")
HOW_TO_GET_SDXL = (
    "for SDXL: pip install 'dreamforge[sdxl]' (in a checkout: make setup-sdxl) and get a checkpoint "
    "(`dreamforge model download REF`, or one you have: --model FILE, DF_GENERATE_MODEL_PATH, "
    f"{DEFAULT_CHECKPOINT})"
)


@dataclass(frozen=True)
class Choice:
    """``mode`` and ``checkpoint`` are what the children get; ``said`` is one line for people."""

    mode: BackendMode
    checkpoint: Path | None
    said: str


def missing_libraries() -> list[str]:
    """Which of SDXL's libraries are not installed; nothing is imported to find out."""
    return [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]


def installed(root: Path) -> list[str]:
    """Ids of the SDXL models below the models root whose files are there."""
    return [
        found.model.id
        for found in models_root.scan(root)
        if found.model and found.problem is None and found.model.kind is ModelKind.SDXL_CHECKPOINT
    ]


def choose(
    asked: BackendMode,
    checkpoint: Path | None,
    *,
    installed: Sequence[str] = (),
    missing: Callable[[], list[str]] = missing_libraries,
    default: Path = DEFAULT_CHECKPOINT,
) -> Choice:
    """Decide between sdxl and sketch; raises ``ConfigurationError`` when sdxl was asked for and can't be.

    ``installed`` are the ids of models in the models root. A checkpoint that is named by hand must be there.
    """
    path = (checkpoint or default).expanduser().absolute()
    if asked is BackendMode.SKETCH:
        return Choice(BackendMode.SKETCH, None, "backend: sketch (a drawing, not a diffusion model)")
    by_hand = path if path.is_file() else None
    there = by_hand is not None or bool(installed)
    absent = missing() if there else []
    if asked is BackendMode.SDXL:
        if not there or (checkpoint and not by_hand):
            raise ConfigurationError(f"--backend sdxl: there is no checkpoint at {path}; {HOW_TO_GET_SDXL}")
        if absent:
            raise ConfigurationError(f"--backend sdxl: not installed: {', '.join(absent)}; {HOW_TO_GET_SDXL}")
    if there and not absent:
        return Choice(BackendMode.SDXL, by_hand, f"backend: sdxl with {by_hand or ', '.join(installed)}")
    why = f"not installed: {', '.join(absent)}" if absent else f"no checkpoint at {path}"
    # Without libraries an installed model must not become the default of jobs, as it would in auto.
    mode = BackendMode.SKETCH if absent and installed else BackendMode.AUTO
    return Choice(mode, None, f"backend: sketch, a drawing and not a diffusion model ({why}); {HOW_TO_GET_SDXL}")
