"""The render child: the one process that imports a backend, and all of torch with it.

It obeys one message at a time on its main thread, decodes on a helper thread while the next item denoises, and
dies with its parent. Started by :mod:`dreamforge_runner.process` as ``python -m dreamforge_runner.child FD``.
"""

import contextlib
import ctypes
import os
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from dreamforge.crashpoints import CrashPoint, CrashSettings, arm_from, reach
from dreamforge.errors import ErrorCode, JobError
from dreamforge.settings import load
from dreamforge.spec import ModelRef, RenderParams
from dreamforge_runner import wire
from dreamforge_runner.backends import registry
from dreamforge_runner.backends.base import Backend, Item, Memory, RenderCanceled

_PR_SET_PDEATHSIG = 1
#: Steps are told no oftener than this: readers see four a second, and a message costs more than a fast step may.
_TELL_SECONDS = 0.1


@dataclass(frozen=True)
class _Broken:
    """The decode thread's way to tell the main thread that an item can't be finished."""

    error: JobError


class _Loaded(NamedTuple):
    """What a backend holds: ``file`` tells the checkpoint from another one put in its place."""

    model: ModelRef
    file: tuple[int, ...] | None
    checkpoint_hash: str | None


class RenderChild:
    """Keeps backends and their model warm between jobs."""

    def __init__(self, channel: wire.Channel) -> None:
        self._channel = channel
        self._commands: queue.SimpleQueue[wire.Message | _Broken] = queue.SimpleQueue()
        self._cancel = threading.Event()
        self._backends: dict[str, Backend] = {}
        self._loaded: dict[str, _Loaded] = {}
        self._backend: Backend | None = None  # of the job in hand
        self._decoder = ThreadPoolExecutor(1, thread_name_prefix="decode")

    def run(self) -> None:
        """Obey until told to leave."""
        threading.Thread(target=self._listen, name="listen", daemon=True).start()
        while True:
            command = self._commands.get()
            if isinstance(command, wire.Shutdown):
                return
            try:
                self._obey(command)
            except RenderCanceled:
                pass  # the Cancel that caused it is the next command and ends the job
            except JobError as error:
                index = command.item_index if isinstance(command, wire.RenderItem) else error.item_index
                failed = JobError(error.code, error.message, item_index=index)
            except Exception as error:  # noqa: BLE001 - a backend may raise anything; its text may hold a prompt
                traceback.print_exc()
                failed = JobError(ErrorCode.PROVIDER_ERROR, f"The backend raised {type(error).__name__}")
            else:
                continue
            # Outside of `except`, and a fresh error: the caught one's frames hold tensors that must be freed.
            if not self._cancel.is_set():
                self._fail(failed)

    def _listen(self) -> NoReturn:
        """Take messages off the wire. The supervisor's end closing means that it is gone: so are we."""
        try:
            while True:
                message = self._channel.receive()
                if isinstance(message, wire.Cancel):
                    self._cancel.set()
                elif isinstance(message, wire.StartJob):
                    self._cancel.clear()  # here, in the order of the wire, so that a later Cancel is never lost
                self._commands.put(message)
        except wire.ChannelClosed:
            os._exit(0)

    def _obey(self, command: wire.Message | _Broken) -> None:
        match command:
            case wire.Prepare(target):
                self._prepare(target)
            case wire.StartJob():
                self._start(command)
            case wire.RenderItem(index, seed) if self._backend is not None:
                self._render(self._backend, Item(index, seed))
            case wire.EndJob() | wire.Cancel() if self._backend is not None:
                memory = self._end()
                self._channel.send(
                    wire.JobDone(memory.peak_mib, memory.end_mib) if memory else wire.JobDone(None, None)
                )
            case _Broken(error) if self._backend is not None:
                raise error
            case _:
                pass  # meant for a job that has ended already

    def _prepare(self, target: str) -> Backend:
        if (known := self._backends.get(target)) is not None:
            return known
        begun = time.perf_counter()
        backend = self._backends[target] = registry.load(target)
        seconds = time.perf_counter() - begun
        self._channel.send(wire.Prepared(target, backend.name, backend.digital_source_type, seconds))
        return backend

    def _start(self, job: wire.StartJob) -> None:
        begun = time.perf_counter()
        model = ModelRef.model_validate(job.model)
        file = _identity(model)
        loaded = self._loaded.get(job.target)
        reused = loaded is not None and loaded[:2] == (model, file)
        backend = self._prepare(job.target)
        if loaded is None or not reused:
            self._loaded.pop(job.target, None)
            loaded = self._loaded[job.target] = _Loaded(model, file, backend.load(model))
        self._backend = backend
        for notice in backend.begin(RenderParams.model_validate(job.params)):
            self._channel.send(wire.Noticed(notice.code, notice.message, notice.level.value))
        seconds = time.perf_counter() - begun
        source = (backend.name, backend.digital_source_type)
        self._channel.send(wire.JobReady(*source, seconds, reused, loaded.checkpoint_hash))

    def _render(self, backend: Backend, item: Item) -> None:
        told = 0.0

        def on_step(done: int) -> bool:
            nonlocal told
            if (now := time.monotonic()) - told >= _TELL_SECONDS:
                told = now
                self._channel.send(wire.StepDone(item.index, done))
            reach(CrashPoint.CHILD_DENOISING)
            return not self._cancel.is_set()

        latents = backend.denoise(item, on_step)
        self._channel.send(wire.Denoised(item.index))
        self._decoder.submit(self._decode, backend, item, latents)
        reach(CrashPoint.CHILD_ITEM_DENOISED)

    def _decode(self, backend: Backend, item: Item, latents: Any) -> None:
        try:
            if not self._cancel.is_set():
                pixels = backend.decode(latents)
                self._channel.send(wire.ItemRendered(item.index, pixels.width, pixels.height, pixels.rgb))
        except JobError as error:
            self._commands.put(_Broken(JobError(error.code, error.message, item_index=item.index)))
        except wire.ChannelClosed:
            pass  # the listener ends the process
        except Exception as error:  # noqa: BLE001 - a backend may raise anything; its text may hold a prompt
            traceback.print_exc()
            message = f"Decoding raised {type(error).__name__}"
            self._commands.put(_Broken(JobError(ErrorCode.PROVIDER_ERROR, message, item_index=item.index)))

    def _end(self) -> Memory | None:
        """Wait for the decoder, then free what the job used."""
        self._decoder.submit(int).result()
        backend, self._backend = self._backend, None
        return backend.end() if backend is not None else None

    def _fail(self, error: JobError) -> None:
        memory: Memory | None = None
        try:
            memory = self._end()
        except Exception:  # noqa: BLE001 - the first error is the one to tell; the supervisor discards this process
            traceback.print_exc()
        peak = memory.peak_mib if memory else None
        self._channel.send(wire.Failed(error.code.value, error.message, error.item_index, peak))


def _identity(model: ModelRef) -> tuple[int, ...] | None:
    """Which file the model is now; ``None`` for a model that has none."""
    if model.path is None:
        return None
    try:
        status = os.stat(model.path)
    except (OSError, ValueError):
        return ()  # equal to no file that was loaded, so that loading is tried and says what is wrong
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _die_with_parent() -> None:
    """Ask Linux to kill this process when the supervisor's thread that started it ends, however it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    _die_with_parent()
    # Ctrl-C reaches the whole terminal; the supervisor alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    arm_from(load(CrashSettings))
    channel = wire.Channel(socket.socket(fileno=int(sys.argv[1])))
    with contextlib.suppress(wire.ChannelClosed):
        RenderChild(channel).run()
    sys.stdout.flush()
    sys.stderr.flush()
    # No interpreter shutdown: threads of a backend (CUDA, tokenizers) must not be able to hold the process.
    os._exit(0)


if __name__ == "__main__":
    main()
