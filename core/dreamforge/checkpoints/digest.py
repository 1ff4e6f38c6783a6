"""The sha256 of a file on disk, remembered while inode, size and time of the file stay the same."""

import hashlib
import os
from pathlib import Path

from dreamforge.checkpoints.refusals import missing

_HASH_CHUNK_BYTES = 4 * 2**20


def sha256(path: Path, cache: Path | None = None) -> str:
    """Hex sha256 of the file; ``cache`` is a folder that remembers it while inode, size and mtime stay the same."""
    try:
        with path.open("rb") as file:
            entry = None if cache is None else cache / _cache_name(os.fstat(file.fileno()))
            if entry is not None and (known := _cached(entry)):
                return known
            digest = hashlib.sha256()
            while chunk := file.read(_HASH_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise missing(f"the checkpoint {path} can't be read: {error.strerror}") from None
    if entry is not None:
        _remember(entry, digest.hexdigest())
    return digest.hexdigest()


def _cache_name(status: os.stat_result) -> str:
    return f"{status.st_dev}-{status.st_ino}-{status.st_size}-{status.st_mtime_ns}.sha256"


def _cached(entry: Path) -> str | None:
    try:
        known = entry.read_text("ascii")
    except (OSError, ValueError):
        return None
    return known if len(known) == 64 else None


def _remember(entry: Path, digest: str) -> None:
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        draft = entry.with_suffix(f".{os.getpid()}")
        draft.write_text(digest, "ascii")
        draft.replace(entry)
    except OSError:
        return  # The cache saves time; a full or read-only disk must not fail the job.
