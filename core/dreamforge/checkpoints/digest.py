"""The sha256 of a file on disk, remembered while inode, size and time of the file stay the same.

A memory is a folder of small files. One lies in each models root (:func:`memory_of`): who verified a file last, on
whatever machine, saves every runner that mounts the root the reading of gigabytes. A file that was changed in place
and given back its size and modification time is taken for the one it was: ``dreamforge model verify`` asks no memory
and sees that. Who may write a memory may write the models beside it.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from dreamforge.checkpoints.refusals import missing

#: Small enough to stay in a core's cache between the copy out of the kernel and the hash.
_CHUNK_BYTES = 2**18
_HEX_DIGITS = frozenset("0123456789abcdef")


def memory_of(root: Path) -> Path:
    """The memory inside a models root, for the files below it."""
    return root / ".hashes"


def sha256(path: Path, *memories: Path | None) -> str:
    """Hex sha256 of the file: the first that a memory knows, else what :func:`read` finds."""
    return remembered(path, *memories) or read(path, *memories)


def remembered(path: Path, *memories: Path | None) -> str | None:
    """What the first memory that knows the file says of it; the file is not read."""
    try:
        name = _entry_name(path.stat())
    except (OSError, ValueError) as error:
        raise missing(f"the checkpoint {path} can't be read: {error}") from None
    for memory in memories:
        if memory is not None and (known := _known(memory / name)):
            return known
    return None


def read(path: Path, *memories: Path | None, on_bytes: Callable[[int], None] | None = None) -> str:
    """Hex sha256 of what is on the disk now, whatever is remembered; every memory is told.

    ``on_bytes`` hears how many bytes were read since it heard last.
    """
    digest = hashlib.sha256()
    buffer = bytearray(_CHUNK_BYTES)
    view = memoryview(buffer)
    try:
        with path.open("rb", buffering=0) as file:
            name = _entry_name(os.fstat(file.fileno()))
            while count := file.readinto(buffer):
                digest.update(view[:count])
                if on_bytes is not None:
                    on_bytes(count)
            steady = _entry_name(os.fstat(file.fileno())) == name
    except OSError as error:
        raise missing(f"the checkpoint {path} can't be read: {error.strerror}") from None
    for memory in memories if steady else ():  # a file that was written to meanwhile never had this sha256
        if memory is not None:
            _tell(memory / name, digest.hexdigest())
    return digest.hexdigest()


def remember(path: Path, digest: str, memory: Path) -> None:
    """Write down what was computed elsewhere, such as while the file was downloaded. Never raises."""
    try:
        name = _entry_name(path.stat())
    except OSError:
        return
    _tell(memory / name, digest)


def _entry_name(status: os.stat_result) -> str:
    # Without the device's number: that changes between boots, mounts and machines.
    return f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}.sha256"


def _known(entry: Path) -> str | None:
    try:
        known = entry.read_text("ascii")
    except (OSError, ValueError):
        return None
    return known if len(known) == 64 and _HEX_DIGITS.issuperset(known) else None


def _tell(entry: Path, digest: str) -> None:
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        draft = entry.with_suffix(f".{os.getpid()}")
        draft.write_text(digest, "ascii")
        draft.replace(entry)
    except OSError:
        return  # A memory saves time; a full or read-only disk must not fail the job.
