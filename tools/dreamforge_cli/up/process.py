"""One supervised child process: started, its output logged, started again when it ends, surely stopped."""

import asyncio
import contextlib
import os
import signal
import time
from asyncio.subprocess import Process as Running
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from dreamforge.errors import DreamForgeError
from dreamforge_cli.embedded.launch import Launch
from dreamforge_cli.up.logs import Lines, LogFile, entry
from dreamforge_cli.up.restart import Restarts

_SHOWN = frozenset({"warning", "error", "critical"})
#: What every process of this project ends with when a setting is wrong.
_WRONG_SETTING = 2
_LAST_WORDS_SECONDS = 2.0


@dataclass(frozen=True)
class Spec:
    """What to run. ``prepare`` may block and runs before every start; ``launch`` gives the command."""

    name: str
    launch: Callable[[], Launch]
    environment: Mapping[str, str]
    prepare: Callable[[], None] | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    #: Ends when its work is done, like the migration; not started again after exit 0.
    once: bool = False


@dataclass
class Supervised:
    """Keeps one child of ``spec`` alive until :meth:`stop`. ``say`` shows a line to the person at the terminal."""

    spec: Spec
    log: LogFile
    say: Callable[[str], None]
    longest_pause: float = 10.0
    #: Set when the child says that a setting is wrong; ``last_line`` then holds its words.
    refused: asyncio.Event = field(default_factory=asyncio.Event)
    last_line: str = ""
    _running: Running | None = None
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def pid(self) -> int | None:
        return self._running.pid if self._running else None

    async def run(self) -> None:
        """Start the child, and again whenever it ends, until :meth:`stop` (or success, for ``once``)."""
        restarts = Restarts(longest_seconds=self.longest_pause)
        while not self._stopping.is_set():
            began = time.monotonic()
            how = await self._live_once()
            if self._stopping.is_set() or (self.spec.once and how == "exit 0"):
                return
            restarts = restarts.after(time.monotonic() - began)
            self.say(f"{self.spec.name}: ended ({how}); starting again in {restarts.delay_seconds:.1f} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), restarts.delay_seconds)

    async def stop(self, seconds: float) -> None:
        """End the child: politely, then after ``seconds`` with its whole group by force."""
        self._stopping.set()
        running = self._running
        if running is None or running.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            running.send_signal(self.spec.stop_signal)
        try:
            await asyncio.wait_for(running.wait(), seconds)
        except TimeoutError:
            self.say(f"{self.spec.name}: did not end in {seconds:.1f} s, killed")
            _kill_group(running.pid)
            await running.wait()

    async def _live_once(self) -> str:
        try:
            if self.spec.prepare is not None:
                await asyncio.to_thread(self.spec.prepare)
            if self._stopping.is_set():
                return "stopped"
            running, output = await self._spawn()
        except (OSError, DreamForgeError) as error:
            self.last_line = str(error)
            return str(error)
        if self._stopping.is_set():  # asked to stop while the child was being made: `stop` has not seen it
            _kill_group(running.pid)
        pump = asyncio.create_task(self._pump(output))
        code = await running.wait()
        # What the child started itself must not outlive it, nor hold its pipe open.
        _kill_group(running.pid)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(pump, _LAST_WORDS_SECONDS)
        if code == _WRONG_SETTING:
            self.refused.set()
        if code > 0 and self.last_line:
            return f"exit {code}: {self.last_line}"
        return f"signal {-code}" if code < 0 else f"exit {code}"

    async def _spawn(self) -> tuple[Running, BinaryIO]:
        """Start the child; its output comes through a pipe of ours.

        With a pipe of asyncio's, `wait` would return only when all who inherited the pipe are gone too
        (until Python 3.13), so a grandchild could hide the child's death.
        """
        command = self.spec.launch()
        reader, writer = os.pipe()
        output = os.fdopen(reader, "rb", buffering=0)
        try:
            self._running = await asyncio.create_subprocess_exec(
                *command.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writer,
                stderr=writer,
                # Its own session: Ctrl-C reaches `up` alone, which then stops the children in order.
                start_new_session=True,
                env={**os.environ, **self.spec.environment},
                **command.identity,
            )
        except BaseException:
            output.close()
            raise
        finally:
            os.close(writer)
        return self._running, output

    async def _pump(self, output: BinaryIO) -> None:
        """Log the child's output until its end; closes ``output``."""
        stream = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), output)
        try:
            lines = Lines()
            while chunk := await stream.read(65536):
                for line in lines.feed(chunk):
                    self._record(line)
            for line in lines.end():
                self._record(line)
        finally:
            transport.close()

    def _record(self, line: bytes) -> None:
        record = entry(self.spec.name, line)
        if record is None:
            return
        self.log.write(record)
        self.last_line = str(record.get("message", ""))
        if record.get("level") in _SHOWN:
            self.say(f"{self.spec.name}: {self.last_line}")


def _kill_group(pid: int) -> None:
    """The child leads its own group, so its pid names it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
