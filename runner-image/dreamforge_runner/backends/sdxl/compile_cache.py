"""Compiled kernels on disk: one file for each combination of torch, driver, GPU and plan.

The first line is JSON (what the file was made with, the lengths of its parts, the sha256 of the rest), the rest is
what torch gave, a part for each time: it gives what one process used, not what others compiled for other sizes.
Files are replaced by renaming, so any number of runners may share the folder. torch unpickles what it is given, and
unpickling runs code: a file that another user owns or may write is not read. Nothing here needs torch.
"""

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

_VERSION = 2
_LONGEST_HEADER = 64 << 10
#: The newest are kept. What falls out is compiled again by the next that needs it, and is new then.
_MOST_PARTS = 16
_MOST_BYTES = 512 << 20


class Ignored(Exception):
    """A file that is there and must not be used; the text says why."""


class CompileCache:
    """The file of one combination of ``facts``."""

    def __init__(self, folder: Path, facts: Mapping[str, object]) -> None:
        self._facts = json.dumps({"version": _VERSION, **facts}, sort_keys=True, default=str)
        self.path = folder / f"{_digest(self._facts.encode())[:24]}.kernels"
        self._refused: set[str] = set()

    def read(self) -> list[bytes]:
        """What was added, the newest last; nothing when there is no file. Raises :class:`Ignored`."""
        try:
            with self.path.open("rb") as file:
                _refuse_foreign(os.fstat(file.fileno()), self.path.parent.stat())
                header, rest = _header(file.readline(_LONGEST_HEADER)), file.read()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise Ignored(f"it can't be read ({error.strerror})") from None
        if header.get("facts") != self._facts:
            raise Ignored("it was made with other versions or another plan")
        if header.get("sha256") != _digest(rest):
            raise Ignored("it is damaged")
        return _parts(header.get("sizes"), rest)

    def refuse(self, parts: Iterable[bytes]) -> None:
        """Parts that torch can't read: the next ``add`` leaves them out."""
        self._refused.update(map(_digest, parts))

    def add(self, artifacts: bytes) -> None:
        """Put ``artifacts`` behind what is there and may be used. Raises ``OSError``.

        Of two runners that add at one moment one is lost: the next to need its kernels compiles them and adds them.
        """
        try:
            there = self.read()
        except Ignored:
            there = []
        unfit = self._refused | {_digest(artifacts)}
        self._write(_newest([*(part for part in there if _digest(part) not in unfit), artifacts]))

    def _write(self, parts: Sequence[bytes]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        rest = b"".join(parts)
        header = json.dumps({"facts": self._facts, "sizes": list(map(len, parts)), "sha256": _digest(rest)})
        handle, draft = tempfile.mkstemp(dir=self.path.parent, suffix=".draft")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(header.encode() + b"\n")
                file.write(rest)
            os.replace(draft, self.path)
        except BaseException:
            os.unlink(draft)
            raise


def _header(line: bytes) -> dict[str, Any]:
    try:
        header = json.loads(line)
    except ValueError:
        raise Ignored("it is damaged") from None
    return header if isinstance(header, dict) else {}


def _parts(sizes: object, rest: bytes) -> list[bytes]:
    if not isinstance(sizes, list) or not all(isinstance(size, int) and size >= 0 for size in sizes):
        raise Ignored("it is damaged")
    ends = list(accumulate(sizes, initial=0))
    if ends[-1] != len(rest):
        raise Ignored("it is damaged")
    return [rest[begin:end] for begin, end in pairwise(ends)]


def _newest(parts: Sequence[bytes]) -> list[bytes]:
    """As many of the last as may be kept; the very last in any case."""
    sizes = accumulate(len(part) for part in reversed(parts))
    fit = sum(size <= _MOST_BYTES for size in sizes)
    return list(parts[-max(1, min(fit, _MOST_PARTS)) :])


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _refuse_foreign(*found: os.stat_result) -> None:
    """File and folder must be this user's, and nobody else's to write."""
    for status in found:
        if status.st_uid not in (os.getuid(), 0):
            raise Ignored("another user owns it or its folder")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise Ignored("other users may write it or its folder")
