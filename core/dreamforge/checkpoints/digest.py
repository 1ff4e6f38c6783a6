"""The sha256 of a file on disk, remembered while inode, size and time of the file stay the same."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from dreamforge.checkpoints.refusals import missing

#: Small enough to stay in a core's cache between the copy out of the kernel and the hash.
_CHUNK_BYTES = 2**18


def sha256(path: Path, cache: Path | None = None) -> str:
    """Hex sha256 of the file; ``cache`` is a folder that remembers it while inode, size and mtime stay the same."""
    try:
        entry = None if cache is None else cache / _cache_name(path.stat())
    except OSError as error:
        raise missing(f"the checkpoint {path} can't be read: {error.strerror}") from None
    if entry is not None and (known := _cached(entry)):
        return known
    return read(path, cache)


def read(path: Path, cache: Path | None = None, on_bytes: Callable[[int], None] | None = None) -> str:
    """Hex sha256 of what is on the disk now, whatever ``cache`` remembers; ``cache`` remembers this from now on.

    ``on_bytes`` hears how many bytes were read since it heard last.
    """
    digest = hashlib.sha256()
    buffer = bytearray(_CHUNK_BYTES)
    view = memoryview(buffer)
    try:
        with path.open("rb", buffering=0) as file:
            entry = None if cache is None else cache / _cache_name(os.fstat(file.fileno()))
            while count := file.readinto(buffer):
                digest.update(view[:count])
                if on_bytes is not None:
                    on_bytes(count)
    except OSError as error:
        raise missing(f"the checkpoint {path} can't be read: {error.strerror}") from None
    if entry is not None:
        _write(entry, digest.hexdigest())
    return digest.hexdigest()


def remember(path: Path, digest: str, cache: Path) -> None:
    """Who has just written the file and knows its sha256 spares the others reading it."""
    try:
        entry = cache / _cache_name(path.stat())
    except OSError:
        return
    _write(entry, digest)


def _cache_name(status: os.stat_result) -> str:
    return f"{status.st_dev}-{status.st_ino}-{status.st_size}-{status.st_mtime_ns}.sha256"


def _cached(entry: Path) -> str | None:
    try:
        known = entry.read_text("ascii")
    except (OSError, ValueError):
        return None
    return known if len(known) == 64 else None


def _write(entry: Path, digest: str) -> None:
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        draft = entry.with_suffix(f".{os.getpid()}")
        draft.write_text(digest, "ascii")
        draft.replace(entry)
    except OSError:
        return  # The cache saves time; a full or read-only disk must not fail the job.
