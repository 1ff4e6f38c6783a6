"""One server process of a cluster: a command line, a log, and tests that stop it, freeze it and start it again."""

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

_STOP_SECONDS = 5.0


class Process:
    """The same command each time it starts; its log is appended to."""

    def __init__(self, name: str, command: Sequence[str | Path], log: Path) -> None:
        self.name = name
        self.log = log
        self._command = [str(word) for word in command]
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start it, in a session of its own so that Ctrl-C reaches the tests alone."""
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def stop(self) -> None:
        """End it, by force when it lingers (kube-apiserver waits a minute for an etcd that is gone)."""
        if self._child is None:
            return
        self._child.terminate()
        try:
            self._child.wait(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()

    def freeze(self) -> None:
        """Let it answer nothing, with its connections open."""
        assert self._child is not None, "start it first"
        os.kill(self._child.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._child is not None, "start it first"
        os.kill(self._child.pid, signal.SIGCONT)

    def last_words(self, characters: int = 2000) -> str:
        """The end of its log, for an error message."""
        return self.log.read_text(errors="replace")[-characters:] if self.log.exists() else "(no log)"
