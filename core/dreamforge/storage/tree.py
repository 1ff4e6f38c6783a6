"""A folder tree that no path leaves: every step is opened relative to the one before it and never follows a link.

Plain path joins would follow a symbolic link that somebody put below the root, also between a check and its use.
Only the root itself may be a link, because the operator of the machine chose it.
"""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_NOT_AN_OBJECT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


@contextmanager
def directory(root: Path, parts: Sequence[str], *, create: bool = False) -> Iterator[int]:
    """A descriptor of the folder ``parts`` below ``root``; with ``create``, missing folders are made and durable."""
    if create:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
    current = os.open(root, _DIRECTORY)
    try:
        for part in parts:
            below = _step(current, part, create=create)
            os.close(current)
            current = below
        yield current
    finally:
        os.close(current)


def _step(above: int, part: str, *, create: bool) -> int:
    try:
        return os.open(part, _DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
    except FileNotFoundError:
        if not create:
            raise
    try:
        os.mkdir(part, dir_fd=above)
        os.fsync(above)
    except FileExistsError:
        pass  # another writer was first
    return os.open(part, _DIRECTORY | os.O_NOFOLLOW, dir_fd=above)


def open_file(root: Path, parts: Sequence[str]) -> int | None:
    """A read descriptor of a regular file; ``None`` when there is none, or a folder, or a link on the way."""
    try:
        with directory(root, parts[:-1]) as folder:
            # Without O_NONBLOCK a pipe that somebody left here would block the reader for ever.
            file = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError as error:
        if error.errno in _NOT_AN_OBJECT:
            return None
        raise
    if stat.S_ISREG(os.fstat(file).st_mode):
        return file
    os.close(file)
    return None


def write_new(root: Path, parts: Sequence[str], data: bytes) -> os.stat_result:
    """Write a file that must not exist, and bring it to the disk; a failed write leaves nothing behind."""
    with directory(root, parts[:-1], create=True) as folder:
        file = os.open(parts[-1], os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666, dir_fd=folder)
        try:
            with os.fdopen(file, "wb", buffering=0) as out:
                rest = memoryview(data)
                while rest:
                    rest = rest[out.write(rest) :]
                os.fsync(out.fileno())
                return os.fstat(out.fileno())
        except BaseException:
            os.unlink(parts[-1], dir_fd=folder)
            raise


def remove(root: Path, parts: Sequence[str]) -> None:
    """Remove a file; removing what is not there is success."""
    try:
        with directory(root, parts[:-1]) as folder:
            os.unlink(parts[-1], dir_fd=folder)
            os.fsync(folder)
    except OSError as error:
        if error.errno not in _NOT_AN_OBJECT:
            raise


def prune(root: Path, parts: Sequence[str]) -> None:
    """Remove the folder ``parts`` and those above it, up to the first that holds something.

    A writer must not be on its way into them: the caller holds the lock that writers take.
    """
    for depth in range(len(parts), 0, -1):
        try:
            with directory(root, parts[: depth - 1]) as folder:
                os.rmdir(parts[depth - 1], dir_fd=folder)
        except OSError:
            return  # not empty, or not ours to remove; an empty folder is not an object


def walk(root: Path, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], os.stat_result]]:
    """Every regular file below ``above`` that is not hidden, in the byte order of its slash-joined path."""
    try:
        with directory(root, above) as folder, os.scandir(folder) as entries:
            # A folder sorts as if its name ended with the slash that follows it in every path.
            found = sorted(
                (entry.name + "/" if entry.is_dir(follow_symlinks=False) else entry.name)
                for entry in entries
                if not entry.name.startswith(".") and not entry.is_symlink()
            )
    except OSError as error:
        if error.errno in _NOT_AN_OBJECT:
            return
        raise
    for name in found:
        if name.endswith("/"):
            yield from walk(root, (*above, name[:-1]))
        else:
            yield from _stat_of((*above, name), root)


def _stat_of(parts: tuple[str, ...], root: Path) -> Iterator[tuple[tuple[str, ...], os.stat_result]]:
    file = open_file(root, parts)
    if file is None:
        return  # removed since its folder was read
    try:
        yield parts, os.fstat(file)
    finally:
        os.close(file)
