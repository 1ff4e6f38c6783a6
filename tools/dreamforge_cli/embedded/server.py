"""What the embedded servers share: a child process that is started, waited for, and surely stopped."""

import os
import secrets
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path

from dreamforge.errors import DreamForgeError
from dreamforge_cli.embedded.launch import Launch

_READY_SECONDS = 60.0
_STOP_SECONDS = 6.0


class ServerDidNotStart(DreamForgeError):
    """A server ended, or did not answer in time; the text holds the end of its log."""


class EmbeddedServer(ABC):
    """One server on a free port of 127.0.0.1, its data below ``home``.

    A supervisor uses :meth:`prepare`, :meth:`launch` and :meth:`ready`; tests use :meth:`start` and :meth:`stop`.
    The port stays the same for the life of this object, so that clients find a restarted server again.
    """

    name: str
    #: Asks for a quick and clean end.
    stop_signal: signal.Signals

    def __init__(self, home: Path) -> None:
        self.home = home.resolve()
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def source(self) -> str:
        """Which binary was taken, for people."""

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients connect; holds the password."""

    @abstractmethod
    def prepare(self) -> None:
        """Make the data folder if it is new, and stop an orphan of a killed parent that still holds it."""

    @abstractmethod
    def launch(self) -> Launch:
        """The command that runs the server in the foreground."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether a real connection works now."""

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Prepare, start, and wait until a connection works; raises ``ServerDidNotStart``."""
        self.prepare()
        log = self.home / f"{self.name}.log"
        command = self.launch()
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                command.argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                cwd="/",
                **command.identity,
            )
        deadline = time.monotonic() + _READY_SECONDS
        while not self.ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                tail = log.read_text(errors="replace")[-2000:]
                raise ServerDidNotStart(f"{self.name} did not start ({self.source}); its log ends:\n{tail}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End the server: politely, then by force; returns when it is gone."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(self.stop_signal)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    """A port of 127.0.0.1 that nothing uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def keep_password(path: Path) -> str:
    """The password in ``path``; a new random one, readable by its owner only, when there is none yet."""
    if not path.exists():
        draft = path.with_suffix(".new")
        draft.unlink(missing_ok=True)
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as out:
            out.write(secrets.token_urlsafe(24))
        draft.rename(path)
    return path.read_text().strip()


def stop_orphan(pid_file: Path, *, program: str, folder: Path, stop_signal: signal.Signals) -> bool:
    """Stop the server that a killed parent left on this data folder; True when there was one.

    A pid alone proves nothing, pids come again: only a live process whose command line names both the
    ``program`` and the ``folder`` is touched.
    """
    try:
        pid = int(pid_file.read_text().split(maxsplit=1)[0])
    except (FileNotFoundError, ValueError, IndexError):
        return False
    if not _is(pid, program, folder):
        return False
    for sign in (stop_signal, signal.SIGKILL):
        os.kill(pid, sign)
        deadline = time.monotonic() + _STOP_SECONDS
        while time.monotonic() < deadline:
            if not _is(pid, program, folder):
                return True
            time.sleep(0.02)
    raise ServerDidNotStart(f"{program} (pid {pid}) of an earlier run holds {folder} and can't be stopped")


def _is(pid: int, program: str, folder: Path) -> bool:
    line = _command_line(pid)
    return program in line and str(folder) in line


def _command_line(pid: int) -> str:
    """How a process was started; empty when it is gone. Slim images have no `ps`, other systems no `/proc`."""
    if Path("/proc/self").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return ""
    asked = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
