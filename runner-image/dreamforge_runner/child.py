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
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from dreamforge.checkpoints import converted
from dreamforge.crashpoints import CrashPoint, CrashSettings, arm_from, reach
from dreamforge.errors import ErrorCode, JobError
from dreamforge.events import AllocatorMemory, Level
from dreamforge.settings import load
from dreamforge.spec import ModelRef, RenderParams
from dreamforge_runner import prefetch, wire
from dreamforge_runner.backends import registry
from dreamforge_runner.backends.base import Backend, Batching, Item, Notice, OnStep, RenderCanceled

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
    file: "_File | None"
    checkpoint_hash: str | None

    def serves(self, model: ModelRef, file: "_File | None") -> bool:
        """Whether a job with ``model`` can have it: the same file decides, whatever the entry is called."""
        if file != self.file or model.kind != self.model.kind:
            return False
        if file is None:
            return model == self.model
        same_bytes = model.sha256 in (None, self.model.sha256, self.checkpoint_hash)
        same_size = model.size_bytes in (None, self.model.size_bytes, file.size)
        return model.path == self.model.path and same_bytes and same_size


class RenderChild:
    """Keeps backends and their model warm between jobs."""

    def __init__(self, channel: wire.Channel) -> None:
        self._channel = channel
        self._commands: queue.SimpleQueue[wire.Message | _Broken] = queue.SimpleQueue()
        self._cancel = threading.Event()
        self._backends: dict[str, Backend] = {}
        self._loaded: dict[str, _Loaded] = {}
        self._backend: Backend | None = None  # of the job in hand
        self._at: int | None = None  # the item that is being denoised
        self._one_by_one = False  # memory was too small for several items of this job at once
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
                index = self._at if isinstance(command, wire.RenderItems) else error.item_index
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
            case wire.Prepare(target, model):
                backend = self._prepare(target, model)
                if model is not None:
                    self._warm_up(target, backend, ModelRef.model_validate(model))
            case wire.StartJob():
                self._start(command)
            case wire.RenderItems(indexes, seeds) if self._backend is not None:
                self._render(self._backend, list(map(Item, indexes, seeds)))
            case wire.EndJob() | wire.Cancel() if self._backend is not None:
                self._channel.send(wire.JobDone(_figures(self._end())))
            case _Broken(error) if self._backend is not None:
                raise error
            case _:
                pass  # meant for a job that has ended already

    def _prepare(self, target: str, model: dict[str, Any] | None) -> Backend:
        if (known := self._backends.get(target)) is not None:
            return known
        if model is not None and model.get("path"):
            prefetch.begin(*converted.paths(Path(model["path"])))
        begun = time.perf_counter()
        backend = self._backends[target] = registry.load(target)
        seconds = time.perf_counter() - begun
        self._channel.send(wire.Prepared(target, backend.name, backend.digital_source_type, seconds))
        return backend

    def _start(self, job: wire.StartJob) -> None:
        begun = time.perf_counter()
        backend = self._prepare(job.target, job.model)
        loaded, reused = self._load(job.target, backend, ModelRef.model_validate(job.model))
        self._backend, self._one_by_one = backend, False
        self._tell(*backend.begin(RenderParams.model_validate(job.params)))
        seconds = time.perf_counter() - begun
        source = (backend.name, backend.digital_source_type)
        together = backend.micro_batch if isinstance(backend, Batching) else 1
        self._channel.send(wire.JobReady(*source, seconds, reused, loaded.checkpoint_hash, together))

    def _load(self, target: str, backend: Backend, model: ModelRef) -> tuple[_Loaded, bool]:
        """The loaded model, and whether it was loaded before."""
        file, loaded = _identity(model), self._loaded.get(target)
        if loaded is not None and loaded.serves(model, file):
            return loaded, True
        self._loaded.pop(target, None)
        loaded = self._loaded[target] = _Loaded(model, file, backend.load(model))
        return loaded, False

    def _warm_up(self, target: str, backend: Backend, model: ModelRef) -> None:
        begun = time.perf_counter()
        self._load(target, backend, model)
        if isinstance(backend, Batching):
            self._tell(*backend.warm_up())
        self._channel.send(wire.Warmed(time.perf_counter() - begun))

    def _tell(self, *notices: Notice) -> None:
        for notice in notices:
            self._channel.send(wire.Noticed(notice.code, notice.message, notice.level.value))

    def _render(self, backend: Backend, items: list[Item]) -> None:
        self._at = items[0].index
        if len(items) > 1 and isinstance(backend, Batching) and not self._one_by_one:
            try:
                self._hand_on(backend, items, backend.denoise_many(items, self._on_step(items)))
                return
            except JobError as error:
                if error.code is not ErrorCode.GPU_OOM:
                    raise
            self._one_by_one = True
            text = f"Too little GPU memory for {len(items)} images at once; this job goes on one by one"
            self._tell(Notice("gpu.one_by_one", text, Level.WARNING))
        for item in items:
            self._at = item.index
            self._hand_on(backend, [item], [backend.denoise(item, self._on_step([item]))])

    def _on_step(self, items: list[Item]) -> OnStep:
        told = 0.0

        def on_step(done: int) -> bool:
            nonlocal told
            if (now := time.monotonic()) - told >= _TELL_SECONDS:
                told = now
                for item in items:
                    self._channel.send(wire.StepDone(item.index, done))
            reach(CrashPoint.CHILD_DENOISING)
            return not self._cancel.is_set()

        return on_step

    def _hand_on(self, backend: Backend, items: list[Item], denoised: Sequence[Any]) -> None:
        """The denoiser is free for the next; the decoder takes these."""
        for item, latents in zip(items, denoised, strict=True):
            self._channel.send(wire.Denoised(item.index))
            self._decoder.submit(self._decode, backend, item, latents)
            reach(CrashPoint.CHILD_ITEM_DENOISED)

    def _decode(self, backend: Backend, item: Item, latents: Any) -> None:
        try:
            if not self._cancel.is_set():
                pixels = backend.decode(latents)
                if pixels.notice is not None:
                    self._tell(pixels.notice)
                size = (pixels.width, pixels.height)
                self._channel.send(wire.ItemRendered(item.index, *size, pixels.rgb, pixels.plan))
        except JobError as error:
            self._commands.put(_Broken(JobError(error.code, error.message, item_index=item.index)))
        except wire.ChannelClosed:
            pass  # the listener ends the process
        except Exception as error:  # noqa: BLE001 - a backend may raise anything; its text may hold a prompt
            traceback.print_exc()
            message = f"Decoding raised {type(error).__name__}"
            self._commands.put(_Broken(JobError(ErrorCode.PROVIDER_ERROR, message, item_index=item.index)))

    def _end(self) -> AllocatorMemory | None:
        """Wait for the decoder, then free what the job used."""
        self._decoder.submit(int).result()
        backend, self._backend = self._backend, None
        return backend.end() if backend is not None else None

    def _fail(self, error: JobError) -> None:
        memory: AllocatorMemory | None = None
        try:
            memory = self._end()
        except Exception:  # noqa: BLE001 - the first error is the one to tell; the supervisor discards this process
            traceback.print_exc()
        self._channel.send(wire.Failed(error.code.value, error.message, error.item_index, _figures(memory)))


def _figures(memory: AllocatorMemory | None) -> dict[str, Any] | None:
    return memory.model_dump() if memory is not None else None


class _File(NamedTuple):
    """Which file a path stands for."""

    device: int
    inode: int
    size: int
    mtime_ns: int


#: Of a path that leads nowhere: equal to no file that was loaded, so loading is tried and says what is wrong.
_NO_FILE = _File(-1, -1, -1, -1)


def _identity(model: ModelRef) -> _File | None:
    """Which file the model is now; ``None`` for a model that has none."""
    if model.path is None:
        return None
    try:
        # A checkpoint that was given up for its converted files has none: the first of these stands for it.
        status = os.stat(model.path if os.path.lexists(model.path) else converted.paths(Path(model.path))[0])
    except (OSError, ValueError):
        return _NO_FILE
    return _File(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


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
