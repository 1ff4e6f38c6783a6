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
from dreamforge.models_root import CONFIG_FOLDER, Found, InstalledModel
from dreamforge_cli import console
from dreamforge_cli.models import disk
from dreamforge_cli.models.errors import BadReference, IntegrityError, NotAllowed
from dreamforge_cli.models.install import Outcome, checked, other_bytes, with_configuration
from dreamforge_cli.models.staging import Staging, installed

#: Of the configuration: what the libraries read, and no weights.
_CONFIG_SUFFIXES = frozenset({".json", ".txt"})
_MAX_CONFIG_BYTES = 32 * 2**20
_CHUNK_BYTES = 4 * 2**20
_DIGITS = re.compile(r"\d{1,18}")
#: Of a scheduler's settings: what a checkpoint is trained to predict, when nothing else is said of it.
_USUAL_PREDICTIONS = (None, "epsilon")


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

    ``fetch`` is called when no configuration is found here. An adopted model of the same file that is damaged is
    mended: it keeps its names.
    """
    real, config, sha256 = _looked_at(path, wishes.config, on_bytes)
    same = [one for one in models_root.scan(root) if one.model and one.model.checkpoint.sha256 == sha256]
    for found in same:
        if found.model and found.problem is None and not other_bytes(root, found.folder, found.model):
            return Outcome(found.model, found.folder, 0, already=True)
    damaged = _to_mend(same, wishes.slug)
    identity = identify(real, sha256, wishes.slug, wishes.name, damaged)
    config = config or (damaged and _config_to_mend(root, damaged)) or _of_another(root)
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


def _looked_at(path: Path, config: Path | None, on_bytes: Callable[[int], None]) -> tuple[Path, Path | None, str]:
    """The file itself, its configuration if it has one, and its sha256; the quick refusals come first."""
    read = 0

    def count(size: int) -> None:
        nonlocal read
        read += size
        on_bytes(read)

    try:
        real = path.expanduser().resolve(strict=True)
        sdxl.inspect(real)
        return real, _configuration(real, config), digest.read(real, on_bytes=count)
    except OSError as error:
        raise BadReference(f"{path}: {error.strerror}") from None
    except RuntimeError:  # how pathlib says it before Python 3.13
        raise BadReference(f"{path}: a symbolic link that leads to itself") from None
    except JobError as error:
        raise NotAllowed(str(error)) from None


def is_adopted(model: InstalledModel) -> bool:
    """Whether its id was made here: a download of its reference, if it has one, would install a second model."""
    return model.provenance.source == "file" or (model.provenance.source == "civitai" and "#" not in model.source_uri)


def _to_mend(same: list[Found], slug: str | None) -> InstalledModel | None:
    """The damaged model that the file is for; what was downloaded is for `download` to mend."""
    models = [one.model for one in same if one.model and is_adopted(one.model)]
    return next((model for model in models if slug in (None, model.slug)), None)


def identify(
    path: Path, sha256: str, slug: str | None, name: str | None, known: InstalledModel | None = None
) -> Identity:
    """Who the file is: the ``known`` model, or by what lies beside it, which is a descriptor of ours, or one of
    CivitAI's that tools save there.
    """
    told = _called(known) if known else _beside(path, sha256) or _civitai_info(path, sha256)
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
    return _called(model)


def _called(model: InstalledModel) -> Identity:
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


def _configuration(path: Path, given: Path | None) -> Path | None:
    """Where the configuration is: where the person says, or beside the file."""
    try:
        return configuration.find(path, given)
    except JobError as error:
        if given is not None or error.code is not ErrorCode.MODEL_MISSING:
            raise
    return None


def _config_of(folder: Path, model: InstalledModel) -> Path | None:
    """The configuration of an installed model, when that part of it at least is whole."""
    files = [file for file in model.files if file.role is FileRole.CONFIG]
    try:
        whole = all(digest.read(folder / file.path) == file.sha256 for file in files)
    except JobError:
        return None
    return folder / CONFIG_FOLDER if whole and files else None


def _config_to_mend(root: Path, damaged: InstalledModel) -> Path | None:
    """Its own; ``None`` when it had the one for any checkpoint. Raises when it may have been one for itself alone."""
    own = _config_of(root / damaged.folder, damaged)
    if own is None and CONFIG_FOLDER not in damaged.provenance.ids:
        raise BadReference(f"the configuration of {damaged.id} is damaged too; name a whole one with --config")
    return own


def _of_another(root: Path) -> Path | None:
    """The configuration of another model of the root, of the first that would do for any checkpoint of SDXL."""
    folders = [_config_of(one.folder, one.model) for one in models_root.scan(root) if one.model]
    return next((folder for folder in folders if folder and _is_usual(folder)), None)


def _is_usual(folder: Path) -> bool:
    """Whether nothing in it is for its own model alone: with the settings of a model that predicts velocity, any
    other renders noise, and nobody is told.
    """
    try:
        configuration.check(folder)
        scheduler = json.loads((folder / configuration.SCHEDULER).read_bytes())
        prediction, rescaled = scheduler.get("prediction_type"), scheduler.get("rescale_betas_zero_snr")
    except (JobError, OSError, ValueError, AttributeError, RecursionError):
        return False
    return prediction in _USUAL_PREDICTIONS and not rescaled


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
