"""Installed models as the command line leaves them, of bytes that no backend has to load."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dreamforge import models_root
from dreamforge.models import FileRole, ModelFile, ModelKind, Provenance
from dreamforge.models_root import CONFIG_FOLDER, InstalledModel


def install(root: Path, slug: str = "sdxl-tiny", version: str = "v1", **about: Any) -> InstalledModel:
    """A model's folder with two files and its descriptor."""
    folder = root / ModelKind.SDXL_CHECKPOINT / f"{slug}@{version}"
    files = {
        "tiny.safetensors": (FileRole.CHECKPOINT, f"weights of {slug} {version}".encode()),
        f"{CONFIG_FOLDER}/model_index.json": (FileRole.CONFIG, b"{}"),
    }
    for path, (_, content) in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    given: dict[str, Any] = {
        "slug": slug,
        "version": version,
        "kind": ModelKind.SDXL_CHECKPOINT,
        "name": f"{slug} {version}",
        "source_uri": f"hf:org/{slug}@{'c' * 40}",
        "provenance": Provenance(source="hf", ref=f"hf:org/{slug}", revision="main", commit="c" * 40),
        "files": [
            ModelFile(path=path, role=role, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
            for path, (role, content) in files.items()
        ],
        "verified_at": datetime.now(UTC),
    }
    made = InstalledModel.model_validate(given | about)
    models_root.write(root, made)
    return made
