"""Log files of the children: one NDJSON object a line, whatever the child writes."""

import json
import os
from contextlib import suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any

_ROTATE_BYTES = 16 * 1024 * 1024
_LONGEST_LINE = 256 * 1024


class Lines:
    """Cuts a byte stream into lines; a line without end is cut at 256 KiB."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that ``chunk`` completes."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > _LONGEST_LINE:
            lines.append(self._rest)
            self._rest = b""
        return lines

    def end(self) -> list[bytes]:
        """What was left without a line end."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []


def entry(process: str, line: bytes) -> dict[str, Any] | None:
    """One line as a log entry: JSON objects as they are, anything else wrapped; ``None`` for a blank one."""
    text = line.decode(errors="replace").strip()
    if not text:
        return None
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if isinstance(found, dict):
        return {"process": process, **found}
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    return {"message": text, "level": _level_in(text), "ts": now, "process": process}


def _level_in(text: str) -> str:
    """PostgreSQL's words. Callers that come while it starts or stops are no trouble: they come again."""
    if "the database system is " in text:
        return "info"
    if any(word in text for word in ("FATAL:", "PANIC:", "ERROR:", "Error:", "Traceback")):
        return "error"
    return "warning" if "WARNING:" in text else "info"


class LogFile:
    """``<name>.ndjson``; beyond 16 MiB the file becomes ``<name>.1.ndjson`` and a new one begins.

    A line that the disk has no room for is dropped: whose line it is matters more, and runs on.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._path = folder / f"{name}.ndjson"
        self._old = folder / f"{name}.1.ndjson"
        self._out = self._open()

    def write(self, record: dict[str, Any]) -> None:
        line = json.dumps(record, ensure_ascii=False).encode(errors="replace") + b"\n"
        with suppress(OSError):
            if self._out.tell() > _ROTATE_BYTES:
                self._rotate()
        with suppress(OSError):
            began = self._out.seek(0, os.SEEK_END)  # a file that was cut keeps its old position
            if self._out.write(line) < len(line):
                self._out.truncate(began)  # half a line is no JSON

    def close(self) -> None:
        self._out.close()

    def _rotate(self) -> None:
        with suppress(FileNotFoundError):  # moved already, and then there was no room for a new one
            self._path.replace(self._old)
        out = self._open()
        self._out.close()
        self._out = out

    def _open(self) -> FileIO:
        return self._path.open("ab", buffering=0)  # what is kept back would come up when it is closed
