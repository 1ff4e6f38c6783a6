"""Installed models with converted files, of bytes that no backend has to load."""

from pathlib import Path

from dreamforge.checkpoints import converted
from dreamforge.models_root import InstalledModel
from dreamforge_runner.backends.sdxl import conversion
from dreamforge_runner.backends.sdxl.plan import Number
from tests.models_on_disk import install
from tests.tiny_sdxl import broken

LIBRARIES = {"diffusers": "1", "transformers": "1"}


def drafted(root: Path, model: InstalledModel, kind: Number) -> None:
    """The files of a conversion where they are before they are published; other types give other bytes."""
    for number, part in enumerate(converted.PARTS):
        path = root / model.folder / conversion.ROOM / converted.path_of(part)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(broken.encode({part: [len(kind.value), number + 1]}))


def install_converted(root: Path, kind: Number = Number.FLOAT32, *, keep_original: bool = True) -> InstalledModel:
    """A model as ``dreamforge model convert`` leaves it."""
    model = install(root)
    drafted(root, model, kind)
    model = conversion.publish(root, model, kind, LIBRARIES)
    (root / model.folder / conversion.ROOM).rmdir()
    if keep_original or model.conversion is None:
        return model
    return conversion.drop_original(root, model, model.conversion)
