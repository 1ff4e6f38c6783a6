"""``convert``: an installed checkpoint once more, as runners load it quickest.

The descriptor tells the truth at every moment: it names converted files when all of them are on the disk, and no
checkpoint is removed before it says so. What a killed command leaves is ``.converting``, which nobody reads and the
next command throws away.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dreamforge import models_root, telemetry
from dreamforge.checkpoints import configuration, converted, digest, header, place, sdxl
from dreamforge.checkpoints.refusals import invalid, missing
from dreamforge.errors import ErrorCode, JobError
from dreamforge.models import FileRole, ModelFile, ModelKind
from dreamforge.models_root import BadDescriptor, Conversion, InstalledModel
from dreamforge.settings import load
from dreamforge.spec import ModelRef
from dreamforge_runner.backends.sdxl import faults
from dreamforge_runner.backends.sdxl.libraries import prepare_environment
from dreamforge_runner.backends.sdxl.plan import Number
from dreamforge_runner.backends.sdxl.plan_settings import PlanSettings

if TYPE_CHECKING:
    from types import ModuleType

log = telemetry.logger(__name__)
#: In the model's folder, so that the files get to their place by a rename, and go when the model goes.
ROOM = ".converting"


class Outcome(NamedTuple):
    """What a conversion came to; ``already`` when the same one was there."""

    model: InstalledModel
    already: bool


def convert(folder: Path, kind: Number | None = None, *, keep_original: bool = True) -> Outcome:
    """Convert the model in ``folder`` to ``kind``, unset: as it is converted, else to what this machine's plan wants.

    Raises ``JobError``, or ``OSError`` where the disk refuses; the model then is as it was.
    """
    folder = folder.absolute()
    model = _described(folder)
    root = folder.parents[1]
    with _held(root, model):
        model = _described(folder)
        conversion = model.conversion
        kind = kind or (Number(conversion.dtype) if conversion else _planned())
        known = model.checkpoint.sha256
        # Nothing is given up on the word of a memory.
        memories = [digest.memory_of(root)] if keep_original else []
        if conversion and converted.why_not(folder, conversion, known, kind.value, memories) is None:
            if keep_original or not model.original_kept:
                return Outcome(model, already=True)
            return Outcome(drop_original(root, model, conversion), already=False)
        checkpoint = _checked(root, model)
        room = folder / ROOM
        try:
            with _errors_of(checkpoint):
                shutil.rmtree(room, ignore_errors=True)
                _check_space(checkpoint, kind)
                room.mkdir()
                program = _converting()
                program.write(checkpoint, configuration.find(checkpoint), kind, room)
                model = publish(root, model, kind, program.LIBRARIES)
        finally:
            shutil.rmtree(room, ignore_errors=True)
        if not keep_original and model.conversion is not None:
            model = drop_original(root, model, model.conversion)
        return Outcome(model, already=False)


def publish(root: Path, model: InstalledModel, kind: Number, libraries: Mapping[str, str]) -> InstalledModel:
    """Bring the files from the room to their place and describe them; the model as it is described then."""
    folder = root / model.folder
    room, target = folder / ROOM / converted.FOLDER, folder / converted.FOLDER
    files = [_settled(folder / ROOM, converted.path_of(part), digest.memory_of(root)) for part in converted.PARTS]
    models_root.sync_folder(room)
    bare = model.model_copy(update={"conversion": None})
    if model.conversion is not None:
        models_root.write(root, bare)
    shutil.rmtree(target, ignore_errors=True)
    room.rename(target)
    models_root.sync_folder(folder)
    conversion = Conversion(
        converter=converted.CONVERTER,
        source_sha256=model.checkpoint.sha256,
        dtype=kind.value,
        libraries=dict(libraries),
        original_kept=True,
        files=tuple(files),
    )
    described = bare.model_copy(update={"conversion": conversion})
    models_root.write(root, described)
    return described


def drop_original(root: Path, model: InstalledModel, conversion: Conversion) -> InstalledModel:
    """Give the checkpoint up for its converted files; its sha256 stays what the model is known by."""
    alone = model.model_copy(update={"conversion": conversion.model_copy(update={"original_kept": False})})
    folder = models_root.write(root, alone)
    (folder / model.checkpoint.path).unlink(missing_ok=True)
    models_root.sync_folder(folder)
    return alone


def _settled(room: Path, path: str, memory: Path) -> ModelFile:
    """A written file, safe on the disk and read-only: runners map it into memory."""
    with (room / path).open("rb") as file:
        os.fsync(file.fileno())
        os.fchmod(file.fileno(), 0o444)
        size = os.fstat(file.fileno()).st_size
    sha256 = digest.read(room / path, memory)
    return ModelFile(path=path, role=FileRole.CONVERTED, size_bytes=size, sha256=sha256)


def _described(folder: Path) -> InstalledModel:
    try:
        model = models_root.read(folder)
    except BadDescriptor as error:
        raise missing(f"{error}; name the folder of an installed model, such as models/KIND/ID") from None
    if model.kind is not ModelKind.SDXL_CHECKPOINT or folder.parents[1] / model.folder != folder:
        raise invalid(f"{folder} is not the folder of an SDXL checkpoint named {model.id}")
    return model


def _checked(root: Path, model: InstalledModel) -> Path:
    """The checkpoint, after the questions that a runner asks of it; all of it is read."""
    if not model.original_kept:
        raise missing(
            f"the checkpoint of {model.id} was not kept, so it can't be converted anew; install it again first: "
            f"dreamforge model remove {model.id}, then download or adopt it"
        )
    path = root / model.folder / model.checkpoint.path
    file = model.checkpoint
    reference = ModelRef(
        id=model.id,
        name=model.name,
        kind=model.kind.value,
        version=model.version,
        sha256=file.sha256,
        size_bytes=file.size_bytes,
    )
    sdxl.verify(reference, sdxl.inspect(path))
    place.check_companions(path.parent)
    return path


def _check_space(checkpoint: Path, kind: Number) -> None:
    """Before the first byte is written."""
    with checkpoint.open("rb") as file:
        tensors = header.read(file, checkpoint.stat().st_size)
    needed = kind.size * sum(prod(tensor.shape) for tensor in tensors.values())
    if needed > (free := shutil.disk_usage(checkpoint.parent).free):
        raise JobError(
            ErrorCode.DISK_FULL, f"{needed} bytes are needed and {free} are free on the disk of {checkpoint.parent}"
        )


@contextmanager
def _held(root: Path, model: InstalledModel) -> Iterator[None]:
    """The lock that every command takes which changes a model."""
    path = models_root.lock_of(root, model.folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    with os.fdopen(handle, "r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another command has the model in hand; waiting for it to end", model_id=model.id)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _errors_of(checkpoint: Path) -> Iterator[None]:
    """What the libraries raise, as errors of ours."""
    try:
        yield
    except JobError:
        raise
    except Exception as error:  # the edge to torch and diffusers, which raise anything
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's; what the libraries mean by OSError has no number
        raise faults.while_loading(error, checkpoint) from error


def _planned() -> Number:
    kind: Number = _converting().planned(load(PlanSettings))
    return kind


def _converting() -> "ModuleType":
    prepare_environment()
    try:
        from dreamforge_runner.backends.sdxl.engine import converting  # noqa: PLC0415 - reads that environment
    except ImportError as error:
        raise JobError(
            ErrorCode.PROVIDER_ERROR,
            f"SDXL's libraries are not installed here ({error}): pip install 'dreamforge[sdxl]', or take the "
            "runner's image with SDXL",
        ) from None
    return converting
