"""Server processes of a cluster, that tests stop, kill, freeze and start again."""

import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import psutil

_STOP_SECONDS = 5.0


class Process(ABC):
    """The same command each time it starts; its log is appended to."""

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self.log = log

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def _find(self) -> psutil.Process | None:
        """The process, while it lives."""

    @property
    def running(self) -> bool:
        return self._find() is not None

    @property
    def meter(self) -> psutil.Process:
        """To read its CPU time and memory; it must run."""
        process = self._find()
        assert process is not None, f"{self.name} does not run"
        return process

    def stop(self) -> None:
        """End it, by force when it lingers (kube-apiserver waits a minute for an etcd that is gone)."""
        if process := self._find():
            process.terminate()
            _, alive = psutil.wait_procs([process], timeout=_STOP_SECONDS)
            if alive:
                self.kill()

    def kill(self) -> None:
        """End it as a power cut would."""
        if process := self._find():
            process.kill()
            psutil.wait_procs([process], timeout=_STOP_SECONDS)

    def freeze(self) -> None:
        """Let it answer nothing, with its connections open."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def last_words(self, characters: int = 2000) -> str:
        """The end of its log, for an error message."""
        return self.log.read_text(errors="replace")[-characters:] if self.log.exists() else "(no log)"

    def _signal(self, number: int) -> None:
        self.meter.send_signal(number)


class ChildProcess(Process):
    """A child of the tests, in a session of its own so that Ctrl-C reaches the tests alone."""

    def __init__(self, name: str, command: Sequence[str | Path], log: Path) -> None:
        super().__init__(name, log)
        self._command = [str(word) for word in command]
        self._child: psutil.Popen | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._child = psutil.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def _find(self) -> psutil.Process | None:
        return self._child if self._child is not None and self._child.poll() is None else None
