"""Reads a model's files into the page cache while the libraries are imported: neither needs the other.

Several readers, since one stream rarely fills a fast disk or a network volume. Nothing depends on it: what can't be
read is told by the loading that follows.
"""

import contextlib
import os
import threading
from pathlib import Path

_READERS = 4
_CHUNK_BYTES = 8 << 20
#: Linux reads no more than its readahead window for one hint, however much that asks for.
_HINT_BYTES = 1 << 20
_MEMINFO = Path("/proc/meminfo")


def begin(*paths: Path) -> list[threading.Thread]:
    """Start reading; files that would take more than half of the free memory together are left alone."""
    try:
        sizes = {path: path.stat().st_size for path in paths}
    except (OSError, ValueError):
        return []
    if sum(sizes.values()) > available_bytes() // 2:
        return []
    readers = [
        threading.Thread(target=_read, args=(path, size, number), name=f"prefetch-{number}", daemon=True)
        for path, size in sizes.items()
        for number in range(min(_READERS, size // _CHUNK_BYTES + 1))
    ]
    for reader in readers:
        reader.start()
    return readers


def hint(*paths: Path) -> list[threading.Thread]:
    """Have the kernel read what is not in its cache, all files at a time; what is costs next to nothing."""
    threads = [threading.Thread(target=_ask, args=(path,), name="prefetch-hint", daemon=True) for path in paths]
    for thread in threads:
        thread.start()
    return threads


def available_bytes(meminfo: Path = _MEMINFO) -> int:
    """What the system could hand out without swapping; 0 where it doesn't say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


def _read(path: Path, size: int, first: int) -> None:
    """Every ``_READERS``-th chunk from ``first`` on; the same buffer again and again."""
    buffer = bytearray(_CHUNK_BYTES)
    with contextlib.suppress(OSError), path.open("rb", buffering=0) as file:
        for start in range(first * _CHUNK_BYTES, size, _READERS * _CHUNK_BYTES):
            os.preadv(file.fileno(), [buffer], start)


def _ask(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("rb", buffering=0) as file:
        for start in range(0, os.fstat(file.fileno()).st_size, _HINT_BYTES):
            os.posix_fadvise(file.fileno(), start, _HINT_BYTES, os.POSIX_FADV_WILLNEED)
