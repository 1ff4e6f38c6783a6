"""A backend plug-in that takes three items at once, and says in each image's plan how many it had."""

from collections.abc import Sequence

from dreamforge.errors import ErrorCode, JobError
from dreamforge.events import AllocatorMemory
from dreamforge.spec import ModelRef, RenderParams
from dreamforge_runner.backends.base import Item, Notice, OnStep, Pixels, RenderCanceled

MEASURED = AllocatorMemory(
    allocated_start_mib=7000,
    allocated_peak_mib=9000.5,
    allocated_end_mib=7001,
    reserved_peak_mib=9500,
    reserved_end_mib=7100,
)


class BatchingBackend:
    """Prompts: ``fine``; ``crowded`` has memory for one item only; ``noticed`` decodes with a remark; ``measured``
    tells of memory."""

    name = "batching"
    digital_source_type = "algorithmicMedia"
    micro_batch = 3

    def __init__(self) -> None:
        self._params = RenderParams(prompt="none yet")

    def load(self, model: ModelRef) -> None:
        """Nothing to load."""

    def warm_up(self) -> Sequence[Notice]:
        return []

    def begin(self, params: RenderParams) -> Sequence[Notice]:
        self._params = params
        return []

    def denoise(self, item: Item, on_step: OnStep) -> int:
        return self._denoise([item], on_step)[0]

    def denoise_many(self, items: Sequence[Item], on_step: OnStep) -> Sequence[int]:
        if self._params.prompt == "crowded":
            raise JobError(ErrorCode.GPU_OOM, "no room")
        return self._denoise(items, on_step)

    def _denoise(self, items: Sequence[Item], on_step: OnStep) -> list[int]:
        for step in range(1, self._params.steps + 1):
            if not on_step(step):
                raise RenderCanceled
        return [len(items)] * len(items)

    def decode(self, latents: int) -> Pixels:
        size = self._params.width * self._params.height
        notice = Notice("vae.overflow", "decoded again") if self._params.prompt == "noticed" else None
        return Pixels(self._params.width, self._params.height, bytes(size * 3), f"together={latents}", notice)

    def end(self) -> AllocatorMemory | None:
        return MEASURED if self._params.prompt == "measured" else None
