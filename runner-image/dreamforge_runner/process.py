"""The supervisor's handle on a render child: start, talk, end, and know how it ended."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

from dreamforge import telemetry
from dreamforge_runner import wire
from dreamforge_runner.redaction import PromptFilter

log = telemetry.logger(__name__)
_LONGEST_LINE = 2000


@dataclass(frozen=True, slots=True)
class ChildGone:
    """The child ended; ``returncode`` is negative for a signal, as :mod:`subprocess` reports it."""

    pid: int
    returncode: int


Deliver = Callable[[wire.Message | ChildGone], None]


class ChildProcess:
    """One render child, in a process group of its own."""

    def __init__(self, visible_devices: str | None = None) -> None:
        """``visible_devices``: what the child is to see as CUDA_VISIBLE_DEVICES; ``None`` leaves that as it is."""
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "dreamforge_runner.child", str(theirs.fileno())]
        self._process = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **_gpu_environment(visible_devices)},
        )
        theirs.close()
        self._channel = wire.Channel(ours)
        self._deliver: Deliver | None = None
        self.prompts = PromptFilter()
        #: Fields of the job in hand, for the log lines about what the child prints.
        self.labels: dict[str, str] = {}
        #: Device memory (MiB) at rest with what it holds now, once a job has rendered with that; see ``gpu.py``.
        self.resting_mib: float | None = None
        self._reader = threading.Thread(target=self._read, name="child-messages", daemon=True)
        self._output = threading.Thread(target=self._log_output, name="child-output", daemon=True)
        self._reader.start()
        self._output.start()
        log.info("render child started", child_pid=self.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def attach(self, deliver: Deliver | None) -> None:
        """Send what the child says to ``deliver`` from now on; ``None``: to nobody."""
        self._deliver = deliver

    def send(self, message: wire.Message) -> None:
        """Tell the child something; a dead one is reported by ``ChildGone``, not here."""
        try:
            self._channel.send(message)
        except wire.ChannelClosed:
            log.debug("render child no longer listens", child_pid=self.pid)

    def close(self, patience: float = 1.0) -> None:
        """Ask it to leave, then make it."""
        self.send(wire.Shutdown())
        if not self._wait(patience):
            self.kill(patience)
        self._cleanup()

    def kill(self, grace: float) -> None:
        """SIGTERM to its process group, SIGKILL after ``grace`` seconds."""
        self._signal(signal.SIGTERM)
        if not self._wait(grace):
            self._signal(signal.SIGKILL)
            self._process.wait()
        self._cleanup()

    def _wait(self, seconds: float) -> bool:
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):  # it may have been faster
            os.killpg(self.pid, number)

    def _cleanup(self) -> None:
        self._channel.close()
        self._reader.join(5)
        self._output.join(5)

    def _read(self) -> None:
        try:
            while True:
                self._hand_over(self._channel.receive())
        except wire.ChannelClosed:
            returncode = self._process.wait()
            log.info("render child ended", child_pid=self.pid, returncode=returncode)
            self._hand_over(ChildGone(self.pid, returncode))

    def _hand_over(self, message: wire.Message | ChildGone) -> None:
        if (deliver := self._deliver) is not None:
            deliver(message)

    def _log_output(self) -> None:
        """What libraries print becomes log lines, without any prompt they repeat."""
        stream: IO[bytes] | None = self._process.stdout
        if stream is None:
            return
        with stream:
            for raw in stream:
                line = raw.decode(errors="replace").rstrip()
                if line:
                    told = self.prompts.clean(line)[:_LONGEST_LINE]
                    log.info("render child said", child_pid=self.pid, line=told, **self.labels)


def _gpu_environment(visible_devices: str | None) -> dict[str, str]:
    """CUDA must count GPUs as NVML does, or the GPU that renders is not the one that is measured (``gpu.py``)."""
    order = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}  # CUDA's own is "fastest first"
    return order if visible_devices is None else {**order, "CUDA_VISIBLE_DEVICES": visible_devices}
