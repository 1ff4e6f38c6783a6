"""Compiled kernels on disk: one file for each combination of torch, driver, GPU and plan.

The first line is JSON (what the file was made with, the length and sha256 of the rest), the rest is what torch gave.
Files are replaced by renaming, so any number of runners may share the folder. torch unpickles what it is given, and
unpickling runs code: a file that another user owns or may write is not read. Nothing here needs torch.
"""

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_VERSION = 1
_LONGEST_HEADER = 64 << 10


class Ignored(Exception):
    """A file that is there and must not be used; the text says why."""


class CompileCache:
    """The file of one combination of ``facts``."""

    def __init__(self, folder: Path, facts: Mapping[str, object]) -> None:
        self._facts = json.dumps({"version": _VERSION, **facts}, sort_keys=True, default=str)
        self.path = folder / f"{hashlib.sha256(self._facts.encode()).hexdigest()[:24]}.kernels"

    def read(self) -> bytes | None:
        """What was written last; ``None`` when there is no file. Raises :class:`Ignored`."""
        try:
            with self.path.open("rb") as file:
                _refuse_foreign(os.fstat(file.fileno()), self.path.parent.stat())
                header, artifacts = _header(file.readline(_LONGEST_HEADER)), file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Ignored(f"it can't be read ({error.strerror})") from None
        if header.get("facts") != self._facts:
            raise Ignored("it was made with other versions or another plan")
        if header.get("size") != len(artifacts) or header.get("sha256") != hashlib.sha256(artifacts).hexdigest():
            raise Ignored("it is damaged")
        return artifacts

    def write(self, artifacts: bytes) -> None:
        """Put ``artifacts`` in place of what is there. Raises ``OSError``."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        digest = hashlib.sha256(artifacts).hexdigest()
        header = json.dumps({"facts": self._facts, "size": len(artifacts), "sha256": digest})
        handle, draft = tempfile.mkstemp(dir=self.path.parent, suffix=".draft")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(header.encode() + b"\n")
                file.write(artifacts)
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


def _refuse_foreign(*found: os.stat_result) -> None:
    """File and folder must be this user's, and nobody else's to write."""
    for status in found:
        if status.st_uid not in (os.getuid(), 0):
            raise Ignored("another user owns it or its folder")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise Ignored("other users may write it or its folder")
