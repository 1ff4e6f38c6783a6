"""The benchmark's handle on :mod:`benchmarks.sse_reader`."""

import json
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.processes import own_environment

_PATIENCE_SECONDS = 90.0


class Subscribers:
    """Readers of one stream; ``level`` counts how many batches the slowest of them has."""

    def __init__(self, process: "subprocess.Popen[bytes]", readers: int, log: Path) -> None:
        self._process = process
        self._log = log
        self.readers = readers
        self.level = 0
        #: The newest report: ``at`` (monotonic seconds), ``frames``, ``cpu``, ``lost``.
        self.report = self._line()

    def wait_for(self, level: int) -> float:
        """Until the slowest reader has ``level`` batches; when that was."""
        while self.level < level:
            self.report = self._line()
            self.level = self.report["level"]
            if self.report["lost"]:
                raise RuntimeError(f"{self.report['lost']} streams ended early")
        return float(self.report["at"])

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], _PATIENCE_SECONDS)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            raise RuntimeError(f"the readers say nothing: {self._log.read_text()[-2000:]}")
        found: dict[str, Any] = json.loads(line)
        return found


@contextmanager
def subscribed(port: int, path: str, readers: int, every: int, folder: Path) -> Iterator[Subscribers]:
    """Connected readers for the length of the block; a batch is ``every`` events."""
    argv = ["benchmarks.sse_reader", str(port), path, str(readers), "--every", str(every)]
    log = folder / "sse_reader.log"
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            bufsize=0,  # select() must see what is unread
            cwd=folder,
            env=own_environment({}),
        )
    try:
        yield Subscribers(process, readers, log)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()
