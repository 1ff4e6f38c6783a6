"""From a spec to a finished attempt: identity, spool, events, and what earlier processes left unsent."""

import fcntl
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO
from uuid import uuid4

from dreamforge import telemetry
from dreamforge.spec import RenderSpec
from dreamforge.transport.base import EventSink
from dreamforge_runner.outbox import Outbox
from dreamforge_runner.spool import SUFFIX, Header, Spool

log = telemetry.logger(__name__)

_LOCK = "lock"


def draw_attempt_id() -> str:
    """An identity that no other attempt has, of this process or of any other."""
    return f"run-{uuid4().hex}"


class SpoolHome:
    """This process's folder of spools, locked while it lives, so that no other process takes them for leftovers."""

    def __init__(self, root: Path) -> None:
        self._root = root
        name = secrets.token_hex(6)
        self.path = root / f"runner-{name}"
        self._lock: IO[bytes] | None = None
        # Locked before it has the name that others look for.
        unborn = root / f"new-{name}"
        try:
            unborn.mkdir(parents=True)
            self._lock = _try_lock(unborn)
            unborn.replace(self.path)
        except OSError as error:
            log.error("the spool folder can't be written", error=error.strerror)

    def open(self, spec: RenderSpec, attempt_id: str) -> Spool:
        return Spool.create(self.path, Header.of(spec, attempt_id))

    def leftovers(self) -> list[Path]:
        """Spools whose process is gone; they move into this process's care."""
        found: list[Path] = []
        if self._lock is None:
            return found  # no folder to move them into: they wait for a process that has one
        for folder in sorted(self._root.glob("runner-*")):
            if folder == self.path or not folder.is_dir():
                continue
            lock = _try_lock(folder)
            if lock is None:
                continue
            with lock:
                found += [_adopt(path, self.path) for path in sorted(folder.glob(f"*{SUFFIX}"))]
                shutil.rmtree(folder, ignore_errors=True)
        return found

    def close(self) -> None:
        """Let go; an empty folder is removed."""
        if not any(self.path.glob(f"*{SUFFIX}")):
            shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()


class LeftoverDrain:
    """Sends what earlier processes could not, one spool after the other, on a thread."""

    def __init__(self, home: SpoolHome, sink: EventSink, on_found: Callable[[Header], object] | None = None) -> None:
        """``on_found`` hears of each attempt before its last events are sent."""
        self._sink = sink
        self._on_found = on_found
        self._paths = home.leftovers()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leftovers", daemon=True)
        self._thread.start()

    def wait(self, timeout: float) -> bool:
        """Wait for the end; False when time ran out (it goes on in the background)."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(5)

    def _run(self) -> None:
        for path in self._paths:
            spool = Spool.load(path)
            if spool is None:
                log.warning("a spool can't be read and is removed", spool=path.name)
                path.unlink(missing_ok=True)
                continue
            log.info("sending what an earlier process left", attempt_id=spool.header.attempt_id)
            if self._on_found is not None:
                self._on_found(spool.header)
            outbox = Outbox(spool, self._sink)
            outbox.abandon_as_lost()
            while not outbox.drained and not self._stopping.wait(outbox.turn()):
                pass
            if not outbox.drained:
                spool.close()
                return


def wait_all(outboxes: list[Outbox], timeout: float) -> bool:
    """Wait until every outbox is drained; False when time ran out first."""
    deadline = time.monotonic() + timeout
    return all(outbox.wait_drained(max(0.0, deadline - time.monotonic())) for outbox in outboxes)


def _try_lock(folder: Path) -> IO[bytes] | None:
    """The folder's lock, held until closed; ``None`` when a living process has it."""
    file = (folder / _LOCK).open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def _adopt(path: Path, home: Path) -> Path:
    target = home / path.name
    path.replace(target)
    return target
