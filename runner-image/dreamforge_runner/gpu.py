"""GPU memory around an attempt (OR-001): what NVML says about the whole device, in MiB.

The device's figure is used, not the process's: inside a container the driver knows host pids only, so per-process
lists come back empty. On a machine whose GPU is shared with others, `clean` therefore says less.
"""

import threading
import time
from collections.abc import Callable

import pynvml

from dreamforge import telemetry

log = telemetry.logger(__name__)

SAMPLE_SECONDS = 0.2
#: What may stay behind: driver bookkeeping moves by a few MiB on its own.
TOLERANCE_MIB = 64.0
#: CUDA loads kernels at their first use and cuBLAS/cuDNN keep workspaces: allowed in the first job after a model was
#: loaded, whose end then is the baseline of those that find it loaded.
FIRST_JOB_ALLOWANCE_MIB = 1024.0
SETTLE_SECONDS = 10.0
_MIB = 1 << 20


class Gauge:
    """Reads one device's used memory."""

    def __init__(self, read: Callable[[], float | None]) -> None:
        self.read = read


def open_gauge(visible_devices: str | None) -> tuple[Gauge | None, str]:
    """The gauge of the first visible device; or ``None`` and why there is none."""
    first = (visible_devices or "0").split(",")[0].strip()
    try:
        pynvml.nvmlInit()
        if first.isdigit():
            handle = pynvml.nvmlDeviceGetHandleByIndex(int(first))
        elif first.startswith(("GPU-", "MIG-")):
            handle = pynvml.nvmlDeviceGetHandleByUUID(first)
        else:
            return None, "CUDA_VISIBLE_DEVICES names no device"
    except pynvml.NVMLError as error:
        return None, f"{error}"

    def read() -> float | None:
        try:
            return float(pynvml.nvmlDeviceGetMemoryInfo(handle).used) / _MIB
        except pynvml.NVMLError as error:
            log.warning("GPU memory can't be read", cause=str(error))
            return None

    return Gauge(read), ""


class Sampler:
    """Start, peak and end of one attempt; samples from a thread between ``start`` and ``stop``."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="gpu-sampler", daemon=True)
        self.start_mib = gauge.read()
        self.peak_mib = self.start_mib
        self._thread.start()

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            self.look()

    def look(self) -> float | None:
        """Read now; the peak learns of it."""
        used = self._gauge.read()
        if used is not None and (self.peak_mib is None or used > self.peak_mib):
            self.peak_mib = used
        return used

    def settle(self, limit_mib: float, seconds: float = SETTLE_SECONDS) -> float | None:
        """Wait until use is at or below ``limit_mib``; the last reading, whichever way it went."""
        deadline = time.monotonic() + seconds
        while (used := self.look()) is not None and used > limit_mib and time.monotonic() < deadline:
            self._stop.wait(0.1)
        return used

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(2)
