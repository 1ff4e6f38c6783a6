"""The registry follows the disk: what lies in the models root is installed, what is gone or changed is not.

A pass looks at every descriptor in the root (``DF_MODELS_ROOT``) and at checkpoints placed by hand: presence and size
always, the sha256 of files that changed since somebody hashed them. What changed is an event of the model, a log line
and a figure in the metrics, once. Nothing on the disk ends the worker, and nothing is ever final: a root that is not
there (a volume that is not mounted yet, say) takes its models out of service with that reason, and the pass that sees
it again brings them back. Workers of one installation must see the same root, or leave it unset.
"""

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, RowMapping, TextClause
from sqlalchemy.exc import DataError, SQLAlchemyError

from dreamforge import models_root, telemetry
from dreamforge.checkpoints import digest
from dreamforge.db import registry
from dreamforge.errors import JobError
from dreamforge.models import ModelEvent, ModelKind, checkpoint_descriptor
from dreamforge.models_root import DESCRIPTOR, Found, InstalledModel
from dreamforge_api import metrics

log = telemetry.logger("registry")
_Seen = tuple[int, int, int, int]


class RegistrySync:
    """One pass is :meth:`sweep`. Raises what SQLAlchemy raises; the next pass goes on."""

    def __init__(self, engine: Engine, root: Path | None, checkpoint: Path | None) -> None:
        self._engine = engine
        self._root = None if root is None else root.absolute()
        self._checkpoint = None if checkpoint is None else checkpoint.absolute()
        #: What is wrong with a folder that has no row, or with the root: said when it changes.
        self._complaints: dict[str, str] = {}
        #: What this process has seen the hash of: a root that is read-only keeps no memory of its own.
        self._hashes: dict[Path, tuple[_Seen, str]] = {}

    def sweep(self) -> None:
        """Bring the registry in line with the disk."""
        with self._engine.connect() as connection:
            rows = connection.execute(registry.listing(enabled_only=False)).mappings().all()
        complaints: dict[str, str] = {}
        if self._root is not None:
            complaints |= self._sweep_root(self._root, [row for row in rows if row["folder"] is not None])
        self._sweep_placed([row for row in rows if row["folder"] is None])
        for where, problem in complaints.items() - self._complaints.items():
            log.warning("nothing can be registered from a place on disk", place=where, problem=problem)
        self._complaints = complaints
        with self._engine.connect() as connection:
            broken = int(connection.execute(registry.COUNT_NOT_INSTALLED).scalar_one())
        metrics.MODELS_NOT_INSTALLED.set(broken + len(complaints))

    def _sweep_root(self, root: Path, rows: Iterable[RowMapping]) -> dict[str, str]:
        """What is wrong with places that no row stands for."""
        by_folder = {row["folder"]: row["id"] for row in rows}
        if (away := _why_unreadable(root)) is not None:
            for model_id in by_folder.values():
                self._lose(model_id, away)
            return {str(root): away}
        found = {found.folder.relative_to(root).as_posix(): found for found in models_root.scan(root)}
        gone = {folder: _why_gone(root / folder) for folder in by_folder.keys() - found.keys()}
        wrong = {folder: problem for folder, problem in gone.items() if problem is not None}
        wrong |= {folder: one.problem or "" for folder, one in found.items() if one.model is None}
        for folder in wrong.keys() & by_folder.keys():
            self._lose(by_folder[folder], wrong.pop(folder))
        # Last, those whose hash may have to be computed: that takes a while, and what is gone is gone now.
        for folder, one in sorted(found.items(), key=lambda item: item[1].problem is None):
            if one.model is not None and (refused := self._put(root, one, one.model)):
                wrong[folder] = refused
        return wrong

    def _put(self, root: Path, found: Found, model: InstalledModel) -> str | None:
        """Why the database does not take this descriptor."""
        problem = found.problem or self._changed(root, found.folder, model)
        given = registry.upsert_parameters(models_root.descriptor(root, model, problem))
        try:
            if self._write(model.id, registry.UPSERT, given) == ModelEvent.REGISTERED and _why_gone(found.folder):
                self._write(model.id, registry.REMOVE, {"id": model.id, "detail": "removed while it was looked at"})
        except DataError as error:
            return f"{found.folder / DESCRIPTOR} can't be registered: {str(error.orig).partition(chr(10))[0]}"
        return None

    def _changed(self, root: Path, folder: Path, model: InstalledModel) -> str | None:
        """Why the bytes are not those that were installed."""
        for file in model.needed:
            try:
                if self._sha256(folder / file.path, digest.memory_of(root)) != file.sha256:
                    return f"{file.path} has other bytes than those that were installed"
            except (JobError, OSError) as error:
                return str(error)
        return None

    def _sha256(self, path: Path, memory: Path) -> str:
        if told := digest.remembered(path, memory):
            return told  # above all by `model verify`, which has read every byte
        status = path.stat()
        seen = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        known = self._hashes.get(path)
        if known is None or known[0] != seen:
            known = self._hashes[path] = (seen, digest.sha256(path, memory))
        return known[1]

    def _sweep_placed(self, rows: Iterable[RowMapping]) -> None:
        """Checkpoints placed by hand: the one that is configured, and those that were."""
        own = None if self._checkpoint is None else checkpoint_descriptor(self._checkpoint)
        if own is not None:
            self._write(own.id, registry.UPSERT, registry.upsert_parameters(own))
        for row in rows:
            if row["kind"] != ModelKind.SDXL_CHECKPOINT or not row["local_path"] or (own and row["id"] == own.id):
                continue
            there = checkpoint_descriptor(Path(row["local_path"]))
            state = registry.set_installed_parameters(
                row["id"], installed=there.installed, problem=there.problem, size_bytes=there.size_bytes
            )
            self._write(row["id"], registry.SET_INSTALLED, state)

    def _lose(self, model_id: str, problem: str) -> None:
        state = registry.set_installed_parameters(model_id, installed=False, problem=problem)
        self._write(model_id, registry.SET_INSTALLED, state)

    def _write(self, model_id: str, statement: TextClause, parameters: dict[str, Any]) -> str | None:
        """What happened, if anything did."""
        with self._engine.begin() as connection:
            news = connection.execute(statement, parameters).one_or_none()
        if news is None:
            return None
        if news.kind == ModelEvent.NOT_INSTALLED:
            log.warning("a model is not usable", model_id=model_id, problem=news.detail)
        else:
            log.info("a model has news", model_id=model_id, change=news.kind)
        return str(news.kind)


def _why_unreadable(root: Path) -> str | None:
    try:
        next(root.iterdir(), None)
    except OSError as error:
        return f"the models root {root} can't be read: {error.strerror}; it is looked for again and again"
    return None


def _why_gone(folder: Path) -> str | None:
    """None when it has come back meanwhile."""
    try:
        (folder / DESCRIPTOR).stat()
    except OSError as error:
        return f"{folder / DESCRIPTOR} can't be reached: {error.strerror}"
    return None


def run(sync: RegistrySync, interval_seconds: float, stop: threading.Event) -> None:
    """A pass now and every ``interval_seconds`` until ``stop``."""
    while not stop.is_set():
        try:
            sync.sweep()
        except SQLAlchemyError as error:
            log.warning("the registry is looked at again at the next pass", error=str(error))
        except Exception:  # the edge of this thread: whatever lies on the disk, jobs go on
            log.exception("a pass over the models on disk failed")
        stop.wait(interval_seconds)
