"""What a dead child or an ending means in the closed list of errors and exit codes."""

import signal
from pathlib import Path
from typing import Final

from dreamforge.errors import FACTS, ErrorCode, JobError
from dreamforge.events import Outcome

_CGROUP_EVENTS: Final = Path("/sys/fs/cgroup/memory.events")
#: A child that met one of these is not trusted with another job, however clean it looks.
DISCARDING: Final = frozenset(
    {
        ErrorCode.GPU_OOM,
        ErrorCode.GPU_FAULT,
        ErrorCode.PROVIDER_ERROR,
        ErrorCode.ITEM_TIMEOUT,
        ErrorCode.JOB_TIMEOUT,
        ErrorCode.INTERNAL,
    }
)
# Classes that only an observer gives, but that the runner can meet too.
_EXIT_CODES: Final = {ErrorCode.HOST_OOM: 137, ErrorCode.JOB_TIMEOUT: 31}


def oom_kills() -> int:
    """How often the kernel killed for memory in this container so far; 0 where it can't be known."""
    try:
        lines = _CGROUP_EVENTS.read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def of_dead_child(returncode: int, item_index: int | None, oom_kills_before: int) -> JobError:
    """The error of a render child that ended without being asked."""
    if returncode >= 0:
        message = f"The render child left with exit code {returncode}"
        return JobError(ErrorCode.PROVIDER_ERROR, message, item_index=item_index)
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    if -returncode == signal.SIGKILL and oom_kills() > oom_kills_before:
        message = "The host killed the render child for its memory"
        return JobError(ErrorCode.HOST_OOM, message, item_index=item_index)
    return JobError(ErrorCode.PROVIDER_ERROR, f"The render child was killed by {name}", item_index=item_index)


def exit_code(outcome: Outcome | None, code: ErrorCode | None) -> int:
    """What the process leaves with; a refused attempt (``None``) was stopped on request."""
    if outcome is Outcome.SUCCEEDED:
        return 0
    if outcome is not Outcome.FAILED or code is None:
        return FACTS[ErrorCode.STOPPED].exit_code or 30
    return _EXIT_CODES.get(code) or FACTS[code].exit_code or 1
