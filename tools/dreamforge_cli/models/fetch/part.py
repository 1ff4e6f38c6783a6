"""The file on its way (``NAME.part``) and what is beside it, on one disk."""

import fcntl
import os
import shutil
from pathlib import Path

from dreamforge.models_root import sync_folder
from dreamforge_cli.models.errors import DiskError
from dreamforge_cli.models.fetch import sidecar
from dreamforge_cli.models.fetch.sidecar import Sidecar


class Part:
    """``NAME.part`` opened for one download; a second one at the same time is refused."""

    def __init__(self, destination: Path) -> None:
        self._destination = destination
        self.path = destination.with_name(f"{destination.name}.part")
        self._sidecar = destination.with_name(f"{destination.name}.part.json")
        self._fd: int | None = None

    @property
    def fd(self) -> int:
        if self._fd is None:
            raise ValueError("the part is not open")
        return self._fd

    def load(self, digest: str, size: int | None) -> Sidecar | None:
        """What an earlier run left, if it can be gone on from."""
        found = sidecar.load(self._sidecar, self.path, digest)
        return found if found is not None and size in (None, found.size) else None

    def open(self, *, keep: bool) -> None:
        """For writing; empty unless what is in it is to be kept."""
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DiskError(f"{self.path} is being written by another download") from None
        if not keep:
            self._sidecar.unlink(missing_ok=True)
            os.ftruncate(self._fd, 0)

    def make_sure_of_space(self, size: int, spare: int) -> None:
        """Refuse what would fill the disk, before the first byte is written."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            there = self.path.lstat().st_blocks * 512
        except FileNotFoundError:
            there = 0
        needed = size - there
        free = shutil.disk_usage(self.path.parent).free
        if needed > 0 and free < needed + spare:
            raise DiskError(
                f"{self.path.parent} has {free / 2**30:.1f} GiB free; {self._destination.name} needs "
                f"{needed / 2**30:.1f} GiB more, and {spare / 2**30:.2f} GiB stay free"
            )

    def write(self, data: bytes, at: int) -> None:
        """All of it."""
        view = memoryview(data)
        while view:
            count = os.pwrite(self.fd, view, at)
            view, at = view[count:], at + count

    def save(self, now: Sidecar) -> None:
        sidecar.save(self._sidecar, now)

    def keep(self) -> None:
        """It is whole and right: safe on the disk, then in its place, all or nothing."""
        os.fsync(self.fd)
        self.path.replace(self._destination)
        self._sidecar.unlink(missing_ok=True)
        sync_folder(self.path.parent)

    def discard(self) -> None:
        """It is worth nothing."""
        self.path.unlink(missing_ok=True)
        self._sidecar.unlink(missing_ok=True)

    def leave_open(self) -> None:
        """A thread may still write: its descriptor must not come to mean another file."""
        self._fd = None

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
