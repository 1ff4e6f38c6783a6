"""What a test asks of processes that may end while it asks."""

import psutil


def gone(process: psutil.Process | int) -> bool:
    """Whether a process, or the one of this pid, has ended. A zombie has: an orphan's waits for its new parent."""
    try:
        found = process if isinstance(process, psutil.Process) else psutil.Process(process)
        return not found.is_running() or found.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
