"""Models on disk: ``<root>/<kind>/<slug>@<version>/``, each folder with a descriptor that is written last.

The descriptor is the fact and the registry in Postgres is read from it. So a models root can be copied to another
machine, or mounted into pods, and means the same there. It never holds a secret.
"""

import os
import stat
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dreamforge.errors import DreamForgeError
from dreamforge.jobs import StepName
from dreamforge.models import (
    MAX_ID,
    FileRole,
    ModelDescriptor,
    ModelFile,
    ModelKind,
    Provenance,
    Sha256,
    Slug,
    Version,
)
from dreamforge.presets import Preset, PresetName

DESCRIPTOR = "model.json"
#: Where the configuration and tokenizers of a single-file checkpoint lie in its folder.
CONFIG_FOLDER = "config"
#: Below the root: what is under way, and the locks of models.
STAGING = ".staging"
_MAX_DESCRIPTOR_BYTES = 2**20


class BadDescriptor(DreamForgeError):
    """The descriptor of a model's folder can't be read; the text says which and why."""


class Conversion(BaseModel):
    """The checkpoint once more, as runners load it quickest: a file for each part, in one number type."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    converter: int = Field(description="Version of the program that wrote the files; others are not loaded.")
    source_sha256: Sha256 = Field(description="Of the checkpoint they were made from.")
    dtype: str = Field(
        pattern=r"^(bfloat16|float16|float32)$", description="The number type of their weights, by torch's name."
    )
    libraries: dict[str, str] = Field(description="Which versions of the libraries named the weights.")
    original_kept: bool = Field(description="Whether the checkpoint is still there.")
    files: tuple[ModelFile, ...] = Field(min_length=1)


class InstalledModel(BaseModel):
    """The descriptor file: what was installed, from where, and what each file's bytes were when verified."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    slug: Slug
    version: Version
    kind: ModelKind
    name: str = Field(min_length=1, max_length=256)
    source_uri: str = Field(description="The reference that fetches exactly these bytes again; no token in it.")
    provenance: Provenance
    files: tuple[ModelFile, ...] = Field(min_length=1)
    conversion: Conversion | None = None
    capabilities: tuple[str, ...] = (StepName.GENERATE.value,)
    presets: dict[PresetName, Preset] = Field(default_factory=dict)
    verified_at: datetime

    @model_validator(mode="after")
    def _has_a_checkpoint(self) -> "InstalledModel":
        if not any(file.role is FileRole.CHECKPOINT for file in self.files):
            raise ValueError("no file has the role checkpoint")
        if len(self.id) > MAX_ID:
            raise ValueError(f"slug and version are longer than {MAX_ID} characters together")
        return self

    @property
    def id(self) -> str:
        """What a job names."""
        return f"{self.slug}@{self.version}"

    @property
    def folder(self) -> str:
        """POSIX path below the models root."""
        return f"{self.kind.value}/{self.slug}@{self.version}"

    @property
    def checkpoint(self) -> ModelFile:
        """The file that the backend loads; the descriptor's first one of that role."""
        return next(file for file in self.files if file.role is FileRole.CHECKPOINT)

    @property
    def original_kept(self) -> bool:
        """Whether the checkpoint itself should be there, and not its conversion alone."""
        return self.conversion is None or self.conversion.original_kept

    @property
    def needed(self) -> tuple[ModelFile, ...]:
        """Without any of these it can't be rendered; a conversion beside its checkpoint only saves time."""
        if self.conversion is None or self.conversion.original_kept:
            return self.files
        return (*(file for file in self.files if file != self.checkpoint), *self.conversion.files)

    @property
    def present(self) -> tuple[ModelFile, ...]:
        """All that should be on the disk."""
        spare = self.conversion.files if self.conversion and self.conversion.original_kept else ()
        return (*self.needed, *spare)


class Found(NamedTuple):
    """A folder with a descriptor; ``model`` is ``None`` and ``problem`` says why when it can't be read."""

    folder: Path
    model: InstalledModel | None
    problem: str | None


def scan(root: Path) -> Iterator[Found]:
    """Every folder of the layout that holds a descriptor, by name; a root that is not there is empty."""
    for kind in _folders(root):
        for folder in _folders(kind):
            if os.path.lexists(folder / DESCRIPTOR):
                yield _found(root, folder)


def read(folder: Path) -> InstalledModel:
    """The folder's descriptor; raises :class:`BadDescriptor`."""
    path = folder / DESCRIPTOR
    try:
        with open(path, "rb", opener=_never_waiting) as file:
            raw = file.read(_MAX_DESCRIPTOR_BYTES + 1)
    except OSError as error:
        raise BadDescriptor(f"{path} can't be read: {error.strerror}") from None
    if len(raw) > _MAX_DESCRIPTOR_BYTES:
        raise BadDescriptor(f"{path} is over {_MAX_DESCRIPTOR_BYTES} bytes; that is no descriptor")
    try:
        return InstalledModel.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise BadDescriptor(f"{path} is no descriptor: {where}: {first['msg']}") from None


def write(root: Path, model: InstalledModel) -> Path:
    """Put the descriptor into the model's folder, whole or not at all and safe on disk; the folder."""
    folder = root / model.folder
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{DESCRIPTOR}.{os.getpid()}"
    with draft.open("w", encoding="utf-8") as out:
        out.write(model.model_dump_json(indent=2) + "\n")
        out.flush()
        os.fsync(out.fileno())
    draft.replace(folder / DESCRIPTOR)
    sync_folder(folder)
    return folder


def lock_of(root: Path, folder: str) -> Path:
    """The file that a command holds locked while it changes the model of that folder; never deleted."""
    *above, name = folder.split("/")
    return root.joinpath(STAGING, *above, f".{name}.lock")


def sync_folder(folder: Path) -> None:
    """Make sure that the folder's names are on the disk: a rename alone does not outlive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def problem_of(folder: Path, model: InstalledModel) -> str | None:
    """Why the model is not usable, by presence and size; the bytes are for ``dreamforge model verify``."""
    for file in model.needed:
        path = folder / file.path
        try:
            status = path.stat()
        except OSError as error:
            return f"{file.path} can't be reached: {error.strerror}"
        if not stat.S_ISREG(status.st_mode) or not path.resolve().is_relative_to(folder.resolve()):
            return f"{file.path} is not a file inside the model's folder"
        if status.st_size != file.size_bytes:
            return f"{file.path} has {status.st_size} bytes; {file.size_bytes} were installed"
    return None


def descriptor(root: Path, model: InstalledModel, problem: str | None) -> ModelDescriptor:
    """The registry's entry for an installed model; with a ``problem`` it counts as not installed."""
    file = model.checkpoint
    return ModelDescriptor(
        id=model.id,
        slug=model.slug,
        name=model.name,
        kind=model.kind,
        version=model.version,
        checkpoint_hash=file.sha256,
        source_uri=model.source_uri,
        local_path=str(root.absolute() / model.folder / file.path),
        size_bytes=file.size_bytes,
        installed=problem is None,
        capabilities=model.capabilities,
        folder=model.folder,
        files=(*model.files, *(model.conversion.files if model.conversion else ())),
        provenance=model.provenance,
        presets=model.presets,
        verified_at=model.verified_at,
        problem=problem,
    )


def _folders(parent: Path) -> list[Path]:
    try:
        return sorted(path for path in parent.iterdir() if not path.name.startswith(".") and path.is_dir())
    except OSError:
        return []


def _never_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe would hold its reader for ever


def _found(root: Path, folder: Path) -> Found:
    if not folder.resolve().is_relative_to(root.resolve()):
        return Found(folder, None, f"{folder} leads out of the models root")
    try:
        model = read(folder)
    except BadDescriptor as error:
        return Found(folder, None, str(error))
    if folder != root / model.folder:
        return Found(folder, None, f"{folder / DESCRIPTOR} describes {model.folder}, which is another folder")
    return Found(folder, model, problem_of(folder, model))
