"""The disk's own words become ours: what is full, what may not be written, and that nothing is lost by it."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dreamforge_cli.models.errors import DiskError

_FULL = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def errors_of(folder: Path) -> Iterator[None]:
    """Whatever the disk says while ``folder`` is worked on, as a :class:`DiskError`."""
    try:
        yield
    except OSError as error:
        raise disk_error(folder, error) from error


def disk_error(folder: Path, error: OSError) -> DiskError:
    """One line with what to do."""
    if error.errno in _FULL:
        return DiskError(
            f"no space left on the disk of {folder}: what was fetched is kept, so free some space and give the "
            "same command again, or put models elsewhere (--root, DF_MODELS_ROOT)"
        )
    return DiskError(f"{error.filename or folder}: {error.strerror or error}")


def size(count: int) -> str:
    """Bytes for people."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.2f} {unit}"
        amount /= 1024
    return f"{amount:.2f} GiB"
