"""What an exception of torch or diffusers means to a job. Reads names and texts only, so it needs no torch.

Texts raised while rendering may quote the prompt, so they are never passed on: the message names the kind of
error and the place in the library's code instead.
"""

import re
from pathlib import Path

from dreamforge.errors import ErrorCode, JobError

_OUT_OF_MEMORY_TEXTS = ("CUDA out of memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
_DEVICE_TEXTS = ("CUDA error", "cuDNN error", "CUBLAS_STATUS", "CUDNN_STATUS", "CUDA driver", "NVML")
_LOADER_TEXT_LIMIT = 300
_REFUSED = re.compile(r"Tried to allocate ([\d.]+) (bytes|[KMG]iB)")
_UNITS = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def code_of(error: BaseException) -> ErrorCode | None:
    """``gpu_oom`` or ``gpu_fault`` when the device is to blame, else ``None``."""
    names = {cls.__name__ for cls in type(error).__mro__}
    text = str(error)
    if "OutOfMemoryError" in names or _mentions(text, _OUT_OF_MEMORY_TEXTS):
        return ErrorCode.GPU_OOM
    if "AcceleratorError" in names or (isinstance(error, RuntimeError) and _mentions(text, _DEVICE_TEXTS)):
        return ErrorCode.GPU_FAULT
    return None


def refused_bytes(error: BaseException) -> int:
    """How much torch's allocator was asked for when it had no more; 0 where the text does not say."""
    found = _REFUSED.search(str(error))
    return int(float(found[1]) * _UNITS[found[2]]) if found else 0


def while_loading(error: BaseException, path: Path) -> JobError:
    """The loader saw no prompt, so its own words may help."""
    if isinstance(error, MemoryError):
        return JobError(ErrorCode.PROVIDER_ERROR, f"too little host memory to load {path}")
    first_line = (str(error).strip().splitlines() or [""])[0][:_LOADER_TEXT_LIMIT]
    return JobError(
        ErrorCode.MODEL_INVALID, f"the checkpoint {path} can't be loaded: {type(error).__name__}: {first_line}"
    )


def while_rendering(error: BaseException) -> JobError:
    """Neither memory nor device: a defect, or a model and configuration that don't fit together."""
    return JobError(ErrorCode.PROVIDER_ERROR, f"the render library failed: {type(error).__name__} {place_of(error)}")


def place_of(error: BaseException) -> str:
    """``in file.py:123 (function)`` of the innermost frame; holds no user's text."""
    trace = error.__traceback__
    if trace is None:
        return "at an unknown place"
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    return f"in {Path(code.co_filename).name}:{trace.tb_lineno} ({code.co_name})"


def _mentions(text: str, signs: tuple[str, ...]) -> bool:
    return any(sign in text for sign in signs)
