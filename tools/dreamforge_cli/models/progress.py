"""How far long work is, told in two ways: a bar for people, one JSON line a second for programs."""

import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol, Self

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from dreamforge_cli import console

_TICK_SECONDS = 1.0
_RATE_OVER_TICKS = 10


class Reporter(Protocol):
    """What long work tells. Calls may come from any thread."""

    def remark(self, line: str) -> None:
        """One line for a person."""
        ...

    def started(self, what: str, sizes: Mapping[str, int | None]) -> None:
        """Work on these files begins, by name and size; again: more files of the same work."""
        ...

    def here(self, name: str, size_bytes: int) -> None:
        """So much of a file is done."""
        ...

    def ended(self) -> None:
        """No more will come."""
        ...


class Meter:
    """Bytes done and wanted over all files, and how fast they come."""

    def __init__(self) -> None:
        self._sizes: dict[str, int | None] = {}
        self._done: dict[str, int] = {}
        self._ticks: deque[tuple[float, int]] = deque(maxlen=_RATE_OVER_TICKS + 1)
        self._lock = threading.Lock()
        self.current = ""

    def add(self, sizes: Mapping[str, int | None]) -> None:
        with self._lock:
            self._sizes |= sizes

    def here(self, name: str, size_bytes: int) -> None:
        with self._lock:
            self._done[name] = size_bytes
            self.current = name

    @property
    def done(self) -> int:
        with self._lock:
            return sum(self._done.values())

    @property
    def total(self) -> int | None:
        """``None`` while a size is unknown."""
        with self._lock:
            known = [size for size in self._sizes.values() if size is not None]
            return sum(known) if len(known) == len(self._sizes) else None

    def reading(self, now: float) -> dict[str, Any]:
        """One line's worth; the rate is that of the last ten readings."""
        done, total = self.done, self.total
        self._ticks.append((now, done))
        (first, before), (last, after) = self._ticks[0], self._ticks[-1]
        rate = (after - before) / (last - first) if last > first else 0.0
        left = None if total is None or rate <= 0 else (total - done) / rate
        return {
            "file": self.current,
            "bytes_done": done,
            "bytes_total": total,
            "bytes_per_second": round(rate),
            "eta_seconds": None if left is None else round(left, 1),
        }


class Lines:
    """For programs: NDJSON on stdout, a reading each second while work goes on."""

    def __init__(self) -> None:
        self._meter = Meter()
        self._what = ""
        self._over = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def remark(self, line: str) -> None:
        console.as_json_line({"event": "remark", "message": line})

    def started(self, what: str, sizes: Mapping[str, int | None]) -> None:
        self._meter.add(sizes)
        if not self._what:
            self._what = what
            self._ticker.start()

    def here(self, name: str, size_bytes: int) -> None:
        self._meter.here(name, size_bytes)

    def ended(self) -> None:
        if self._what and not self._over.is_set():
            self._over.set()
            self._ticker.join()

    def _tick(self) -> None:
        while not self._over.wait(_TICK_SECONDS):
            self._say()
        self._say()

    def _say(self) -> None:
        console.as_json_line({"event": "progress", "id": self._what, **self._meter.reading(time.monotonic())})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.ended()


class Silent:
    """For programs that want one answer at the end."""

    def remark(self, line: str) -> None:
        console.remarks.print(console.harmless(line))

    def started(self, what: str, sizes: Mapping[str, int | None]) -> None:
        """Nobody listens."""

    def here(self, name: str, size_bytes: int) -> None:
        """Nobody listens."""

    def ended(self) -> None:
        """Nobody listens."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing to put away."""


class Bar:
    """For people: one bar on stderr for all files together, and the name of the one that moves."""

    def __init__(self) -> None:
        self._meter = Meter()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=32),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console.remarks,
            disable=not console.remarks.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("", start=False, total=None)

    def remark(self, line: str) -> None:
        console.remarks.print(console.harmless(line))

    def started(self, what: str, sizes: Mapping[str, int | None]) -> None:
        self._meter.add(sizes)
        self._bar.start()
        self._bar.start_task(self._task)
        self._bar.update(self._task, total=self._meter.total, description=console.harmless(what))

    def here(self, name: str, size_bytes: int) -> None:
        self._meter.here(name, size_bytes)
        self._bar.update(self._task, completed=self._meter.done, description=console.harmless(name))

    def ended(self) -> None:
        self._bar.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.ended()


def reporter(json: bool) -> Lines | Bar:
    """Use as a context manager: whatever happens, the terminal is left as it was."""
    return Lines() if json else Bar()
