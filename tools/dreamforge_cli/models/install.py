"""From a reference to an installed model: resolve, fetch, check, move to its place, describe."""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from dreamforge import models_root
from dreamforge.checkpoints import configuration, digest
from dreamforge.errors import JobError
from dreamforge.models import FileRole, ModelFile, ModelKind, Provenance
from dreamforge.models_root import CONFIG_FOLDER, DESCRIPTOR, InstalledModel
from dreamforge_cli.models import disk, verify
from dreamforge_cli.models.errors import BadReference, DiskError, IntegrityError
from dreamforge_cli.models.fetch.limits import Fetched
from dreamforge_cli.models.progress import Reporter
from dreamforge_cli.models.sources import names
from dreamforge_cli.models.sources.base import Configuration, ResolvedFile, ResolvedModel
from dreamforge_cli.models.staging import Staging, installed


class Sources(Protocol):
    """Resolves references and fetches files; the edge to the network."""

    def resolve(self, reference: str) -> ResolvedModel:
        """What the reference means right now."""
        ...

    def configuration(self, reference: str) -> Configuration:
        """The small files of the pipeline that the reference names."""
        ...

    def fetch(self, file: ResolvedFile, destination: Path, on_bytes: Callable[[int], None]) -> Fetched:
        """Put the file's verified bytes at ``destination``. ``on_bytes`` hears how many are there."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What a download came to; ``fetched_bytes`` is 0 when all was there."""

    model: InstalledModel
    folder: Path
    fetched_bytes: int
    already: bool


@dataclass(frozen=True)
class Installer:
    """Puts models below ``root``; ``config_ref`` is where a checkpoint without configuration gets one."""

    root: Path
    sources: Sources
    config_ref: str
    reporter: Reporter

    def install(self, reference: str, slug: str | None = None, name: str | None = None) -> Outcome:
        """Install what ``reference`` means; raises the errors of ``dreamforge_cli.models.errors``."""
        resolved = self.sources.resolve(reference)
        resolved = sound(replace(resolved, slug=slug or resolved.slug, name=name or resolved.name))
        for warning in resolved.warnings:
            self.reporter.remark(warning)
        model_id = f"{resolved.slug}@{resolved.version}"
        staging = Staging(self.root, f"{resolved.kind.value}/{model_id}")
        waiting = f"{model_id}: another command has it in hand; waiting for it to end"
        with staging.held(lambda: self.reporter.remark(waiting)):
            known = installed(staging.place)
            if known is not None and self._is_there(known, resolved, staging.place):
                return Outcome(known, staging.place, 0, already=True)
            return self._put_together(resolved, staging)

    def configuration(self, staging: Staging) -> tuple[list[ModelFile], str]:
        """SDXL's configuration, put into the staging room, and the reference it came from."""
        config = self.sources.configuration(self.config_ref)
        return [self._obtain(file, staging)[0] for file in config.files], config.source_uri

    def _is_there(self, known: InstalledModel, resolved: ResolvedModel, place: Path) -> bool:
        (wanted,) = [file for file in resolved.files if file.role is FileRole.CHECKPOINT][:1]
        if known.source_uri != resolved.source_uri and known.checkpoint.sha256 != wanted.sha256:
            raise BadReference(
                f"{known.id} is installed from {known.source_uri}, which is another file than {resolved.source_uri}; "
                "give this one another name with --id"
            )
        problem = models_root.problem_of(place, known) or other_bytes(self.root, place, known)
        if problem:
            self.reporter.remark(f"{known.id} is damaged ({problem}): fetching what is missing")
        return problem is None

    def _put_together(self, resolved: ResolvedModel, staging: Staging) -> Outcome:
        files, config = self._with_configuration(resolved)
        self._check_space(files, staging)
        fetched = 0
        self.reporter.started(f"{resolved.slug}@{resolved.version}", {file.path: file.size_bytes for file in files})
        resolved, files = self._with_known_scheduler(resolved, files, staging)
        described = []
        for file in sorted(files, key=lambda one: one.role is FileRole.CHECKPOINT):  # the quick refusals first
            found, bytes_fetched = self._obtain(file, staging)
            described.append(found)
            fetched += bytes_fetched
        model = _described(resolved, config, described)
        checked(staging, model)
        return Outcome(model, staging.publish(model), fetched, already=False)

    def _check_space(self, files: Sequence[ResolvedFile], staging: Staging) -> None:
        """Before the first byte: is there room for all that is still to come?"""
        with disk.errors_of(self.root):
            free = shutil.disk_usage(self.root).free
            there = staging.occupied()
        missing = sum(file.size_bytes or 0 for file in files if not _in_place(file, staging)) - there
        if missing > free:
            raise DiskError(
                f"{disk.size(missing)} are needed and {disk.size(free)} of space are free on the disk of "
                f"{self.root}: free some, or put models elsewhere (--root, DF_MODELS_ROOT); nothing was fetched"
            )

    def _obtain(self, file: ResolvedFile, staging: Staging) -> tuple[ModelFile, int]:
        """One file, in the staging room and verified, and how much of it had to be fetched."""
        destination = staging.file(file.path)
        received = 0
        sha256 = _here(file, destination, self.root) or _salvaged(file, staging, self.root)
        if sha256 is None:
            fetched = self.sources.fetch(file, destination, partial(self.reporter.here, file.path))
            sha256, received = fetched.sha256, fetched.received_bytes
            digest.remember(destination, sha256, digest.memory_of(self.root))
        size = destination.stat().st_size
        self.reporter.here(file.path, size)
        return ModelFile(path=file.path, role=file.role, size_bytes=size, sha256=sha256), received

    def _with_configuration(self, resolved: ResolvedModel) -> tuple[Sequence[ResolvedFile], str | None]:
        """The model's files with a configuration among them, and where that is from when not from the model."""
        has = any(file.role is FileRole.CONFIG for file in resolved.files)
        if has or resolved.kind is not ModelKind.SDXL_CHECKPOINT:
            return resolved.files, None
        config = self.sources.configuration(self.config_ref)
        return (*resolved.files, *config.files), config.source_uri

    def _with_known_scheduler(
        self, resolved: ResolvedModel, files: Sequence[ResolvedFile], staging: Staging
    ) -> tuple[ResolvedModel, Sequence[ResolvedFile]]:
        """The same, or with the default configuration's scheduler for one that is not known here."""
        here = next((file for file in resolved.files if file.path == f"{CONFIG_FOLDER}/{configuration.INDEX}"), None)
        if here is None:
            return resolved, files
        self._obtain(here, staging)
        try:
            unknown = configuration.unknown_scheduler(staging.room / CONFIG_FOLDER)
        except JobError:  # told when all files are there
            return resolved, files
        if unknown is None:
            return resolved, files
        default = self.sources.configuration(self.config_ref)
        wanted = {f"{CONFIG_FOLDER}/{name}" for name in (configuration.INDEX, configuration.SCHEDULER)}
        instead = {file.path: file for file in default.files if file.path in wanted}
        self.reporter.remark(
            f"{resolved.slug}: the scheduler {names.words(unknown)} is not known here; "
            f"the settings of the one in {default.source_uri} are installed in its place"
        )
        ids = {**resolved.provenance.ids, "scheduler": default.source_uri}
        provenance = resolved.provenance.model_copy(update={"ids": ids})
        return replace(resolved, provenance=provenance), [instead.get(file.path, file) for file in files]


def sound(resolved: ResolvedModel) -> ResolvedModel:
    """The same model, if its names may become paths and its descriptor will be a valid one.

    Names come from the command line and from sources that others wrote. Raises :class:`BadReference`.
    """
    unknown = {"size_bytes": 0, "sha256": "0" * 64}
    try:
        files = [ModelFile(path=file.path, role=file.role, **unknown) for file in resolved.files]
        model = _described(resolved, None, files)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise BadReference(f"{first['loc'][-1] if first['loc'] else 'the model'}: {first['msg']}") from None
    paths = [file.path.lower() for file in model.files]
    if len(set(paths)) < len(paths) or DESCRIPTOR in paths:
        raise BadReference(f"{resolved.source_uri}: two of its files would have one name")
    return resolved


def checked(staging: Staging, model: InstalledModel) -> None:
    """Ask of the files what a runner will ask; what fails is thrown away, since another try brings the same."""
    try:
        verify.check(staging.room, model.kind, model.checkpoint.path)
    except JobError as error:
        staging.discard()
        raise IntegrityError(f"{str(error).replace(str(staging.room), model.id)}; nothing was installed") from None


def _described(resolved: ResolvedModel, config: str | None, files: Sequence[ModelFile]) -> InstalledModel:
    order = sorted(files, key=lambda file: (file.role is not FileRole.CHECKPOINT, file.path))
    return InstalledModel(
        slug=resolved.slug,
        version=resolved.version,
        kind=resolved.kind,
        name=resolved.name,
        source_uri=resolved.source_uri,
        provenance=with_configuration(resolved.provenance, config),
        files=tuple(order),
        verified_at=datetime.now(UTC),
    )


def with_configuration(provenance: Provenance, source: str | None) -> Provenance:
    """Where the configuration came from stands among the ids, when that is not where the model came from."""
    ids = provenance.ids if source is None else {**provenance.ids, CONFIG_FOLDER: source}
    return provenance.model_copy(update={"ids": ids})


def other_bytes(root: Path, place: Path, known: InstalledModel) -> str | None:
    """What `verify` would find in a model that is all there; files are read when nobody remembers their hash."""
    memory = digest.memory_of(root)
    changed = [file.path for file in known.needed if digest.sha256(place / file.path, memory) != file.sha256]
    return f"{changed[0]} is not what was installed" if changed else None


def _in_place(file: ResolvedFile, staging: Staging) -> bool:
    """Whether it seems to be in the model's place, to be linked: its own download asks for room if it is not."""
    old = staging.place / file.path
    return not old.is_symlink() and old.is_file() and old.stat().st_size == file.size_bytes


def _here(file: ResolvedFile, path: Path, root: Path) -> str | None:
    """The sha256 of a file that an earlier try has finished, when it is the wanted one."""
    if path.is_symlink() or not path.is_file():
        return None
    with disk.errors_of(path):
        if file.size_bytes is not None and path.stat().st_size != file.size_bytes:
            return None
        sha256 = digest.sha256(path, digest.memory_of(root))
        if file.sha256 is not None:
            return sha256 if sha256 == file.sha256.lower() else None
        return sha256 if file.git_blob == git_blob(path) else None


def _salvaged(file: ResolvedFile, staging: Staging, root: Path) -> str | None:
    """The same from the model's place, where a damaged model may still have good files; each is read afresh."""
    old, new = staging.place / file.path, staging.file(file.path)
    if old.is_symlink() or not old.is_file() or not old.resolve().is_relative_to(staging.place.resolve()):
        return None
    with disk.errors_of(old):
        digest.read(old, digest.memory_of(root))
        sha256 = _here(file, old, root)
        if sha256 is not None:
            new.unlink(missing_ok=True)
            new.hardlink_to(old)
    return sha256


def git_blob(path: Path) -> str:
    """What git calls the file: SHA-1 over a header and the content. Small files only: it is read whole."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
