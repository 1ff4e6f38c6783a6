"""Where a model's files lie on this machine: below its models root, else where the registry says.

A registry row is written on one machine and followed on others, so it carries the place below the root, and each
runner joins that to its own root. Whatever the row says, what is loaded lies inside the root.
"""

from pathlib import Path

from dreamforge import models_root
from dreamforge.checkpoints import converted, digest
from dreamforge.checkpoints.refusals import invalid, missing
from dreamforge.models import FileRole
from dreamforge.models_root import DESCRIPTOR, BadDescriptor, InstalledModel
from dreamforge.spec import ModelRef


def located(model: ModelRef, root: Path | None) -> ModelRef:
    """The model with the path that its checkpoint has here; a model without ``folder_path`` stays as it is.

    Raises ``model_missing`` or ``model_invalid``.
    """
    if model.folder_path is None:
        return model
    if root is None:
        if model.path is None:
            raise missing(f"the model {model.id} lies in the models root, and DF_MODELS_ROOT is not set here")
        return model
    above, _, name = model.folder_path.rpartition("/")
    if converted.original_dropped(unkept := _inside(root, above) / name):
        return model.model_copy(update={"path": str(unkept)})
    path = _inside(root, model.folder_path)
    if not path.is_dir():
        return model.model_copy(update={"path": str(path)})
    found = _described(path)
    if found.id != model.id:
        raise invalid(f"{path} holds the model {found.id}; {model.id} was asked for")
    file = found.checkpoint
    below = f"{model.folder_path}/{file.path}"
    checkpoint = _inside(root, below) if found.original_kept else root / below
    if model.sha256 not in (None, file.sha256):
        raise invalid(f"{path / DESCRIPTOR} has another sha256 for {file.path} than the one that was registered")
    return model.model_copy(
        update={"path": str(checkpoint), "sha256": file.sha256, "size_bytes": file.size_bytes, "name": found.name}
    )


def check_companions(folder: Path) -> None:
    """Compare an installed model's small files (configuration, tokenizers) with their descriptor, where there is one.

    A damaged tokenizer loads and makes wrong pictures; these files are read in milliseconds, so none is remembered.
    """
    if not (folder / DESCRIPTOR).is_file():
        return
    for file in _described(folder).files:
        if file.role is not FileRole.CHECKPOINT and digest.sha256(_inside(folder, file.path)) != file.sha256:
            raise invalid(f"the sha256 of {folder / file.path} is not the one that was installed")


def _described(folder: Path) -> InstalledModel:
    try:
        return models_root.read(folder)
    except BadDescriptor as error:
        raise (invalid if (folder / DESCRIPTOR).exists() else missing)(str(error)) from None


def _inside(root: Path, below: str) -> Path:
    """``root/below`` as it is spelled; links may lead anywhere inside the root."""
    path = root / below
    try:
        real = path.resolve(strict=True)
        outside = not real.is_relative_to(root.resolve())
    except FileNotFoundError:
        raise missing(f"there is no model at {path}") from None
    except (OSError, RuntimeError, ValueError) as error:
        raise missing(f"the model at {path!r} can't be reached: {error}") from None
    if outside:
        raise invalid(f"{path} leads out of the models root {root}")
    return path
