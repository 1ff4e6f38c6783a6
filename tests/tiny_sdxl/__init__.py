"""A tiny SDXL checkpoint with random weights, made with the real libraries; it renders in 0.1 s on a CPU.

    python -m tests.tiny_sdxl.build FOLDER

writes ``FOLDER/tiny-sdxl.safetensors`` (one file, with the tensor names that SDXL checkpoints use) and
``FOLDER/config/`` (pipeline configuration and tokenizers, no weights), which is where the runner looks for it.
:func:`cached` does that once per version of this package and of the libraries, in another process, so that
tests which only need the files never import torch.
"""

import hashlib
import importlib.metadata
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

#: Distributions a render needs; tests that find one missing skip and say which.
LIBRARIES = ("torch", "diffusers", "transformers", "accelerate", "safetensors")
_HERE = Path(__file__).resolve().parent
_ROOT = _HERE.parent.parent
CACHE = _ROOT / ".cache" / "tiny-sdxl"


@dataclass(frozen=True)
class TinySdxl:
    """Where the files are."""

    checkpoint: Path
    config: Path

    @classmethod
    def below(cls, folder: Path) -> "TinySdxl":
        return cls(folder / "tiny-sdxl.safetensors", folder / "config")


def missing_library() -> str | None:
    """The reason to skip, when there is one."""
    for name in LIBRARIES:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return f"{name} is not installed (pip install 'dreamforge[sdxl]')"
    return None


def cached(root: Path = CACHE) -> TinySdxl:
    """The files, made by a child process when this version of them is not there yet."""
    versions = "".join(f"{name}={importlib.metadata.version(name)};" for name in LIBRARIES)
    stamp = hashlib.sha256(versions.encode() + _sources()).hexdigest()[:16]
    folder = root / stamp
    if not folder.is_dir():
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root) as draft:
            command = [sys.executable, "-m", "tests.tiny_sdxl.build", f"{draft}/new"]
            subprocess.run(command, cwd=_ROOT, check=True, timeout=240, capture_output=True)
            try:
                Path(draft, "new").rename(folder)
            except OSError:
                if not folder.is_dir():  # Else another test process was faster, with the same result.
                    raise
    return TinySdxl.below(folder)


def _sources() -> bytes:
    return b"".join(file.read_bytes() for file in sorted(_HERE.glob("*.py")))
