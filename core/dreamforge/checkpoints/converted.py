"""A checkpoint's converted files: one for each part, in the libraries' own names and one number type.

They are made once, where the libraries are (``python -m dreamforge_runner convert``), and save every later load the
renaming and the casts. The model's descriptor says what they were made from and what each file's bytes are; here is
asked, before any library sees them, whether what lies on the disk still is that.
"""

import stat
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dreamforge import models_root
from dreamforge.checkpoints import digest, header
from dreamforge.checkpoints.header import HeaderError
from dreamforge.errors import JobError
from dreamforge.models import ModelFile
from dreamforge.models_root import BadDescriptor, Conversion, InstalledModel

#: Below the model's folder.
FOLDER = "converted"
PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")
#: Another number whenever files of the one before must not be loaded any more.
CONVERTER = 1


def path_of(part: str) -> str:
    """POSIX path of a part's weights below the model's folder."""
    return f"{FOLDER}/{part}.safetensors"


def described(checkpoint: Path) -> InstalledModel | None:
    """The installed model whose checkpoint has this path, if it was converted; the file itself may be gone."""
    try:
        model = models_root.read(checkpoint.parent)
    except (BadDescriptor, ValueError):
        return None  # of a checkpoint placed by hand there is none; a damaged one is told by who needs it
    return model if model.conversion is not None and model.checkpoint.path == checkpoint.name else None


def original_dropped(checkpoint: Path) -> bool:
    """Whether that checkpoint was given up for its converted files, so that nobody has to miss it."""
    model = described(checkpoint)
    return model is not None and not model.original_kept


def paths(checkpoint: Path) -> list[Path]:
    """The files that are read to load this checkpoint: its converted ones where it has them, by the descriptor."""
    model = described(checkpoint)
    if model is None or model.conversion is None:
        return [checkpoint]
    return [checkpoint.parent / file.path for file in model.conversion.files]


def why_not(
    folder: Path, conversion: Conversion, source_sha256: str, dtype: str, memories: Iterable[Path | None] = ()
) -> str | None:
    """Why a conversion can't be loaded in place of its checkpoint; ``None`` when it can.

    All bytes are what they were when the conversion was verified: a file is read unless a memory knows its sha256.
    """
    if conversion.converter != CONVERTER:
        return f"version {conversion.converter} of the converter made it; version {CONVERTER} is read here"
    if conversion.source_sha256 != source_sha256:
        return "it was made from another checkpoint"
    if conversion.dtype != dtype:
        return f"it is in {conversion.dtype}; this runner's plan wants {dtype}"
    if {file.path for file in conversion.files} != {path_of(part) for part in PARTS}:
        return "its descriptor does not name the parts of SDXL"
    known = tuple(memories)
    with ThreadPoolExecutor(len(conversion.files)) as pool:
        wrong = pool.map(lambda file: _wrong(folder, file, known), conversion.files)
        return next((problem for problem in wrong if problem is not None), None)


def _wrong(folder: Path, file: ModelFile, memories: Iterable[Path | None]) -> str | None:
    path = folder / file.path
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or not path.resolve().is_relative_to(folder.resolve()):
            return f"{file.path} is not a file inside the model's folder"
        if status.st_size != file.size_bytes:
            return f"{file.path} has {status.st_size} bytes; {file.size_bytes} were written"
        with path.open("rb") as opened:
            header.read(opened, status.st_size)
        if digest.sha256(path, *memories) != file.sha256:
            return f"{file.path} has other bytes than those that were written"
    except HeaderError as error:
        return f"{file.path} {error}"
    except (OSError, JobError) as error:
        return f"{file.path} can't be read: {error}"
    return None
