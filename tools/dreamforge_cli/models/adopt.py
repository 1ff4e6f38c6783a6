"""A checkpoint that lies on this machine already becomes a model like any other.

The network is asked for one thing only, and only when it is nowhere on this machine: SDXL's configuration.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dreamforge import models_root
from dreamforge.checkpoints import configuration, digest, sdxl
from dreamforge.errors import ErrorCode, JobError
from dreamforge.models import FileRole, InsidePath, ModelFile, ModelKind, Provenance, Slug, plain, sdxl_slug
from dreamforge.models_root import CONFIG_FOLDER, InstalledModel
from dreamforge_cli import console
from dreamforge_cli.models import disk
from dreamforge_cli.models.errors import BadReference, IntegrityError, NotAllowed
from dreamforge_cli.models.install import Outcome, checked, with_configuration
from dreamforge_cli.models.staging import Staging, installed

#: Of the configuration: what the libraries read, and no weights.
_CONFIG_SUFFIXES = frozenset({".json", ".txt"})
_MAX_CONFIG_BYTES = 32 * 2**20
_CHUNK_BYTES = 4 * 2**20
_DIGITS = re.compile(r"\d{1,18}")


@dataclass(frozen=True)
class Identity:
    """What a checkpoint is called, and where it came from."""

    slug: str
    version: str
    name: str
    source_uri: str
    provenance: Provenance


@dataclass(frozen=True)
class Wishes:
    """What the command line said; ``config`` is the folder with model_index.json, ``copy`` forbids a hard link."""

    slug: str | None = None
    name: str | None = None
    config: Path | None = None
    copy: bool = False


#: Puts SDXL's configuration into a staging room; the files, and the reference they came from.
Fetch = Callable[[Staging], tuple[list[ModelFile], str]]


def adopt(root: Path, path: Path, wishes: Wishes, on_bytes: Callable[[int], None], fetch: Fetch) -> Outcome:
    """Install the checkpoint at ``path``, which stays where it is. ``on_bytes`` hears how much is read so far.

    ``fetch`` is called when no configuration is found here.
    """
    real, config, sha256 = _looked_at(root, path, wishes.config, on_bytes)
    for found in models_root.scan(root):
        if found.model and found.problem is None and found.model.checkpoint.sha256 == sha256:
            return Outcome(found.model, found.folder, 0, already=True)
    identity = identify(real, sha256, wishes.slug, wishes.name)
    staging = Staging(root, f"{ModelKind.SDXL_CHECKPOINT.value}/{identity.slug}@{identity.version}")
    with staging.held(lambda: None):
        known = installed(staging.place)
        if known is not None and known.checkpoint.sha256 != sha256:
            raise BadReference(f"{known.id} is another file already; give this one another name with --id")
        companions, source = fetch(staging) if config is None else (_copied(config, staging), None)
        files = [_taken_over(real, staging, sha256, wishes.copy), *companions]
        model = InstalledModel(
            slug=identity.slug,
            version=identity.version,
            kind=ModelKind.SDXL_CHECKPOINT,
            name=identity.name,
            source_uri=identity.source_uri,
            provenance=with_configuration(identity.provenance, source),
            files=tuple(files),
            verified_at=datetime.now(UTC),
        )
        checked(staging, model)
        digest.remember(staging.room / files[0].path, sha256, digest.memory_of(root))
        return Outcome(model, staging.publish(model), 0, already=False)


def _looked_at(
    root: Path, path: Path, config: Path | None, on_bytes: Callable[[int], None]
) -> tuple[Path, Path | None, str]:
    """The file itself, its configuration if there is one here, and its sha256; the quick refusals come first."""
    read = 0

    def count(size: int) -> None:
        nonlocal read
        read += size
        on_bytes(read)

    try:
        real = path.expanduser().resolve(strict=True)
        sdxl.inspect(real)
        return real, _configuration(root, real, config), digest.read(real, on_bytes=count)
    except OSError as error:
        raise BadReference(f"{path}: {error.strerror}") from None
    except RuntimeError:  # how pathlib says it before Python 3.13
        raise BadReference(f"{path}: a symbolic link that leads to itself") from None
    except JobError as error:
        raise NotAllowed(str(error)) from None


def identify(path: Path, sha256: str, slug: str | None, name: str | None) -> Identity:
    """Who the file is, by what lies beside it: a descriptor of ours, or one of CivitAI's that tools save there."""
    told = _beside(path, sha256) or _civitai_info(path, sha256)
    if told is None:
        called = name or console.harmless(path.stem)
        ref = f"file:{console.harmless(path.name)}"
        told = Identity(sdxl_slug(called), sha256[:12], called, ref, Provenance(source="file", ref=ref))
    return Identity(
        _slug(slug) if slug else told.slug, told.version, (name or told.name)[:256], told.source_uri, told.provenance
    )


def _slug(given: str) -> str:
    """What the command line gave, before it becomes part of a path."""
    try:
        return TypeAdapter[str](Slug).validate_python(given)
    except ValidationError as error:
        raise BadReference(f"--id: {error.errors()[0]['msg']}") from None


def _beside(path: Path, sha256: str) -> Identity | None:
    """A folder that was copied from another machine's models root still has its descriptor."""
    model = installed(path.parent)
    if model is None or model.checkpoint.path != path.name:
        return None
    if model.checkpoint.sha256 != sha256:
        raise IntegrityError(
            f"{path} is not the file that the descriptor beside it was written for (its sha256 differs)"
        )
    return Identity(model.slug, model.version, model.name, model.source_uri, model.provenance)


def _civitai_info(path: Path, sha256: str) -> Identity | None:
    """``NAME.civitai.info``: the answer of CivitAI for the file's version, as helper tools save it."""
    try:
        raw = path.with_suffix(".civitai.info").read_bytes()[:_MAX_CONFIG_BYTES]
        info: Any = json.loads(raw)
        files = [file for file in info["files"] if str(file.get("hashes", {}).get("SHA256", "")).lower() == sha256]
        ids = {"model": str(info["modelId"]), "version": str(info["id"]), "file": str(files[0]["id"])}
        called = f"{info['model']['name']} {info['name']}"[:256]
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return None
    if not all(_DIGITS.fullmatch(value) for value in ids.values()):
        return None
    ref = f"civitai:{ids['model']}@{ids['version']}"
    page = f"https://civitai.com/models/{ids['model']}?modelVersionId={ids['version']}"
    provenance = Provenance(source="civitai", ref=ref, revision=ids["version"], ids=ids, page=page)
    return Identity(sdxl_slug(str(info["model"]["name"])), ids["version"], called, ref, provenance)


def _configuration(root: Path, path: Path, given: Path | None) -> Path | None:
    """Where the configuration is: where the person says, beside the file, or with another model of the root."""
    try:
        return configuration.find(path, given)
    except JobError as error:
        if given is not None or error.code is not ErrorCode.MODEL_MISSING:
            raise
    for one in models_root.scan(root):
        if one.problem is None and (one.folder / CONFIG_FOLDER).is_dir():
            configuration.check(one.folder / CONFIG_FOLDER)
            return one.folder / CONFIG_FOLDER
    return None


def _taken_over(path: Path, staging: Staging, sha256: str, copy: bool) -> ModelFile:
    """The checkpoint in the staging room: the same file under a second name, or a copy where that can't be."""
    target = staging.file(_safe_name(path))
    with disk.errors_of(target):
        target.unlink(missing_ok=True)
        if copy or not _linked(path, target):
            _copy(path, target, sha256)
        size = target.stat().st_size
    return ModelFile(path=target.name, role=FileRole.CHECKPOINT, size_bytes=size, sha256=sha256)


def _linked(path: Path, target: Path) -> bool:
    try:
        target.hardlink_to(path)
    except OSError:
        return False  # another disk, or a file of someone else: a copy does as well
    return True


def _safe_name(path: Path) -> str:
    """The file's own name, when it is one that can stand in a descriptor."""
    try:
        return TypeAdapter[str](InsidePath).validate_python(path.name)
    except ValidationError:
        return f"{plain(path.stem) or 'model'}.safetensors"


def _copy(path: Path, target: Path, sha256: str) -> None:
    found = hashlib.sha256()
    try:
        with path.open("rb") as source, target.open("xb") as out:
            while chunk := source.read(_CHUNK_BYTES):
                found.update(chunk)
                out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
    except BaseException:
        target.unlink(missing_ok=True)  # a part of a copy is of no use, and the disk may be full
        raise
    if found.hexdigest() != sha256:
        target.unlink()
        raise IntegrityError(f"{path} changed while it was copied; nothing was installed")


def _copied(config: Path, staging: Staging) -> list[ModelFile]:
    """The configuration's small files; weights that may lie among them are left out."""
    found = []
    for part in sorted([*config.glob("*"), *config.glob("*/*")]):
        below = part.relative_to(config).as_posix()
        if part.suffix not in _CONFIG_SUFFIXES or not part.is_file() or part.stat().st_size > _MAX_CONFIG_BYTES:
            continue
        path = f"{CONFIG_FOLDER}/{below}"
        target = staging.file(path)
        with disk.errors_of(target):
            shutil.copyfile(part, target)
            sha256 = digest.read(target)
            found.append(ModelFile(path=path, role=FileRole.CONFIG, size_bytes=target.stat().st_size, sha256=sha256))
    return found
