"""Which GPUs the runners of `up` may share out among themselves."""

import contextlib
from collections.abc import Iterator

import pynvml


def shared_out(visible_devices: str | None, slots: int) -> list[str]:
    """What CUDA_VISIBLE_DEVICES names, else the index of every GPU of this machine; none where no driver is.

    None for a runner that is alone, either: it takes the first that it sees.
    """
    if slots == 1:
        return []
    if visible_devices is not None:
        return [name for part in visible_devices.split(",") if (name := part.strip())]
    try:
        with _nvml():
            return [str(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []


@contextlib.contextmanager
def _nvml() -> Iterator[None]:
    pynvml.nvmlInit()
    try:
        yield
    finally:
        pynvml.nvmlShutdown()
