"""What `up` renders with: decided once, at start, and said aloud."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dreamforge.errors import ConfigurationError
from dreamforge.models import BackendMode
from dreamforge_cli.settings import DEFAULT_CHECKPOINT

_LIBRARIES = ("torch", "diffusers", "transformers", "accelerate", "safetensors")
HOW_TO_GET_SDXL = (
    "for SDXL: pip install 'dreamforge[sdxl]' (in a checkout: make setup-sdxl) and give a checkpoint "
    "(--model FILE, DF_GENERATE_MODEL_PATH, "
    f"or {DEFAULT_CHECKPOINT})"
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


def choose(
    asked: BackendMode,
    checkpoint: Path | None,
    *,
    missing: Callable[[], list[str]] = missing_libraries,
    default: Path = DEFAULT_CHECKPOINT,
) -> Choice:
    """Decide between sdxl and sketch; raises ``ConfigurationError`` when sdxl was asked for and can't be."""
    path = (checkpoint or default).expanduser().absolute()
    if asked is BackendMode.SKETCH:
        return Choice(BackendMode.SKETCH, None, "backend: sketch (a drawing, not a diffusion model)")
    absent = missing() if path.is_file() else []
    if asked is BackendMode.SDXL:
        if not path.is_file():
            raise ConfigurationError(f"--backend sdxl: there is no checkpoint at {path}; {HOW_TO_GET_SDXL}")
        if absent:
            raise ConfigurationError(f"--backend sdxl: not installed: {', '.join(absent)}; {HOW_TO_GET_SDXL}")
    if path.is_file() and not absent:
        return Choice(BackendMode.SDXL, path, f"backend: sdxl with {path}")
    why = f"not installed: {', '.join(absent)}" if absent else f"no checkpoint at {path}"
    return Choice(
        BackendMode.AUTO,
        None,
        f"backend: sketch, a drawing and not a diffusion model ({why}); {HOW_TO_GET_SDXL}",
    )
