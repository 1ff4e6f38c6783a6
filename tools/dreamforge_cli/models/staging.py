"""Where a model is put together before it is moved to its place, by one process at a time.

``<root>/.staging/<kind>/<slug>@<version>/`` is on the disk of the place it will be moved to, so the move is one
rename. What an interrupted command leaves there is what the next one goes on from.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dreamforge import models_root
from dreamforge.models_root import DESCRIPTOR, STAGING, BadDescriptor, InstalledModel, lock_of, sync_folder
from dreamforge_cli.models import disk
from dreamforge_cli.models.errors import NotAllowed


class Staging:
    """The room of one model; ``folder`` is its POSIX path below the root."""

    def __init__(self, root: Path, folder: str) -> None:
        self.root = root
        self.place = root / folder
        self._parts = (STAGING, *folder.split("/"))
        self.room = root.joinpath(*self._parts)
        self._old = self.room.with_name(f".{self.room.name}.old")

    @contextmanager
    def held(self, on_wait: Callable[[], None]) -> Iterator[None]:
        """Hold the model for this process; ``on_wait`` is called when another one has it, before waiting for it."""
        with disk.errors_of(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            _real_folder(self.root, self._parts[:-1])
            # Never deleted: a lock that is made anew under a waiting process would hold nobody back.
            lock_file = lock_of(self.root, "/".join(self._parts[1:]))
            handle = os.open(lock_file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        with os.fdopen(handle, "r+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_wait()
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def file(self, path: str) -> Path:
        """Where a file of the model is to be written; the folders above it are real ones of ours."""
        *above, name = path.split("/")
        with disk.errors_of(self.room):
            return _real_folder(self.root, (*self._parts, *above)) / name

    def occupied(self) -> int:
        """Bytes on the disk of what is here so far."""
        return _occupied(self.room)

    def publish(self, model: InstalledModel) -> Path:
        """Move everything to its place and write the descriptor, last; the folder.

        A folder that is there already (damaged, or left by a crash right here) is replaced.
        """
        with disk.errors_of(self.place):
            _keep_only(self.room, {file.path for file in model.files})
            parent = _real_folder(self.root, self._parts[1:-1])
            shutil.rmtree(self._old, ignore_errors=True)
            if self.place.is_symlink() or self.place.exists():
                self.place.rename(self._old)
            self.room.rename(self.place)
            sync_folder(parent)
            models_root.write(self.root, model)
            _discard(self._old)
        return self.place

    def discard(self) -> None:
        """Throw away what is under way."""
        with disk.errors_of(self.room):
            _discard(self.room)

    def remove(self) -> None:
        """Take the model from its place: out of sight at once, then file by file."""
        with disk.errors_of(self.place):
            _discard(self._old)
            if self.place.exists():
                _real_folder(self.root, self._parts[:-1])
                self.place.rename(self._old)
                sync_folder(self.place.parent)
            _discard(self._old)
            _discard(self.room)


def installed(place: Path) -> InstalledModel | None:
    """The model that a folder's descriptor tells of, if there is a readable one."""
    if not (place / DESCRIPTOR).is_file():
        return None
    try:
        return models_root.read(place)
    except BadDescriptor:
        return None


def unfinished(root: Path) -> dict[str, int]:
    """What interrupted commands left: folders below the root, and how many bytes are there of each."""
    rooms = [room for kind in _folders(root / STAGING) for room in _folders(kind)]
    return {room.relative_to(root / STAGING).as_posix(): _occupied(room) for room in rooms}


def _folders(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    return sorted(
        path for path in parent.iterdir() if path.is_dir() and path.name[0] != "." and not path.is_symlink()
    )


def _occupied(room: Path) -> int:
    """Bytes on the disk. A download may be at work there: what it has just renamed is passed over."""
    occupied = 0
    for above, folders, files in os.walk(room):
        for name in (*folders, *files):
            with suppress(FileNotFoundError):
                occupied += Path(above, name).lstat().st_blocks * 512
    return occupied


def _real_folder(root: Path, parts: Iterable[str]) -> Path:
    """Make the folders below ``root`` one by one; none may be a link to somewhere else."""
    folder = root
    for part in parts:
        folder = folder / part
        folder.mkdir(exist_ok=True)
        if folder.is_symlink():
            raise NotAllowed(f"{folder} is a symbolic link; models are written to real folders below {root} only")
    return folder


def _keep_only(room: Path, wanted: set[str]) -> None:
    """Drop what an earlier try with other files left, then make sure that what stays is on the disk."""
    for above, folders, files in os.walk(room, topdown=False):
        folder = Path(above)
        for name in files:
            if (folder / name).relative_to(room).as_posix() not in wanted:
                (folder / name).unlink()
        for name in folders:
            inner = folder / name
            if inner.is_symlink():
                inner.unlink()
            elif not any(inner.iterdir()):
                inner.rmdir()
        sync_folder(folder)


def _discard(folder: Path) -> None:
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)
