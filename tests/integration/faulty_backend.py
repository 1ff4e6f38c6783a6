"""A backend plug-in that misbehaves as the prompt says; loaded through the documented ``DF_RUNNER_PLUGINS``."""

import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path

from dreamforge.errors import ErrorCode, JobError
from dreamforge.events import AllocatorMemory
from dreamforge.spec import ModelRef, RenderParams
from dreamforge_runner.backends.base import Item, Notice, OnStep, Pixels, RenderCanceled


class FaultyBackend:
    """Prompts: ``fine``, ``killed``, ``hangs``, ``deaf``, ``slow``, ``oom``, ``raises``, ``absent``, ``decode``."""

    name = "faulty"
    digital_source_type = "algorithmicMedia"

    def __init__(self) -> None:
        self._params = RenderParams(prompt="none yet")
        self._loads = 0

    def load(self, model: ModelRef) -> None:
        self._loads += 1
        if model.id == "absent":
            raise JobError(ErrorCode.MODEL_MISSING, "no such file")
        if model.id == "deadly-the-second-time":
            mark = Path("loaded-before")
            if mark.exists():
                os.kill(os.getpid(), signal.SIGKILL)
            mark.touch()

    def begin(self, params: RenderParams) -> Sequence[Notice]:
        self._params = params
        print(f"library chatter: truncated part {params.prompt}", flush=True)
        return [Notice("faulty.pid", f"pid={os.getpid()} loads={self._loads}")]

    def denoise(self, item: Item, on_step: OnStep) -> int:
        last = item.index == self._params.count - 1
        match self._params.prompt.split()[0]:
            case "killed" if last:
                os.kill(os.getpid(), signal.SIGKILL)
            case "hangs" if last:
                threading.Event().wait()
            case "deaf" if last:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                threading.Event().wait()
            case "oom" if last:
                raise JobError(ErrorCode.GPU_OOM, "The GPU has too little memory")
            case "raises" if last:
                raise RuntimeError(self._params.prompt)
            case "slow" if last:
                self._slowly(on_step)
        for step in range(1, self._params.steps + 1):
            if not on_step(step):
                raise RenderCanceled
        return item.seed

    def decode(self, latents: int) -> Pixels:
        if self._params.prompt.startswith("decode"):
            raise JobError(ErrorCode.GPU_FAULT, "The device is gone")
        size = self._params.width * self._params.height
        return Pixels(self._params.width, self._params.height, bytes([latents % 256]) * size * 3)

    def end(self) -> AllocatorMemory | None:
        return None

    @staticmethod
    def _slowly(on_step: OnStep) -> None:
        pause = threading.Event()
        for _ in range(6000):
            pause.wait(0.01)
            if not on_step(1):
                raise RenderCanceled
