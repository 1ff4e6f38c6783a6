"""D1, D2, D4: fetching and verifying a large file over loopback, going on after 70 %, and the memory it takes.

D3, ``model verify``, is in ``verify_models.py``.
"""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness import Absolute, Comparison, NotMeasuredError, Result, compare
from benchmarks.stack import Servers

MIB = 2**20
_SIZE = 2048 * MIB
_QUICK_SIZE = 512 * MIB
#: Fresh, the second side of D2.
_REST = 0.3


@dataclass
class _Bench:
    """The file, its server, and what our side has taken so far."""

    folder: Path
    size: int
    sha256: str
    first_sha256: str
    url: str
    peaks: list[float] = field(default_factory=list)
    curl: list[float] = field(default_factory=list)
    sha256sum: list[float] = field(default_factory=list)

    @property
    def rest(self) -> int:
        return int(self.size * _REST)

    def fetch(self, path: str, size: int, sha256: str, target: str) -> dict[str, Any]:
        os.sync()
        command = [sys.executable, "-m", "benchmarks.download_client"]
        arguments = [f"{self.url}{path}", str(size), sha256, str(self.folder / target)]
        done = subprocess.run([*command, *arguments], check=True, capture_output=True, text=True)
        told: dict[str, Any] = json.loads(done.stdout)
        self.peaks.append(told["peak_mib"])
        return told


def run(_servers: Servers, pairs: int = 5) -> list[Result]:
    """Measure D1, D2 and D4."""
    if missing := [tool for tool in ("curl", "sha256sum") if shutil.which(tool) is None]:
        raise NotMeasuredError(f"not on PATH: {', '.join(missing)}")
    with _bench(_QUICK_SIZE if pairs == 1 else _SIZE) as bench:
        what = f"download and verify {bench.size // MIB} MiB against the slower of curl and sha256sum"
        whole = Comparison("D1", what, "s", 1.10, lower_is_better=True)
        compare(whole, lambda: _whole(bench), lambda: _reference(bench), pairs)
        whole.notes.append(f"curl {_seconds(bench.curl)} s, sha256sum {_seconds(bench.sha256sum)} s, on a warm cache")
        rest = Comparison("D2", "go on after 70 % against a fresh file of 30 %", "s", 1.15, lower_is_better=True)
        compare(rest, lambda: _rest(bench), lambda: _fresh(bench), pairs)
        memory = Absolute("D4", "peak resident memory of a download", "MiB", 200, ours=bench.peaks)
    return [whole, rest, memory]


@contextmanager
def _bench(size: int) -> Iterator[_Bench]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "served"
        sha256, first = _written(path, size, int(size * _REST))
        command = [sys.executable, "-m", "benchmarks.download_server", str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                yield _Bench(Path(folder), size, sha256, first, f"http://127.0.0.1:{int(server.stdout.readline())}")
            finally:
                server.kill()


def _written(path: Path, size: int, first_size: int) -> tuple[str, str]:
    """Hashes of the file and of its first part."""
    whole, first, piece = hashlib.sha256(), hashlib.sha256(), random.randbytes(MIB - 8)
    with path.open("wb") as out:
        for number in range(size // MIB):
            data = number.to_bytes(8, "little") + piece
            out.write(data)
            whole.update(data)
            first.update(data[: max(0, first_size - number * MIB)])
    return whole.hexdigest(), first.hexdigest()


def _whole(bench: _Bench) -> float:
    told = bench.fetch("/all", bench.size, bench.sha256, "ours")
    (bench.folder / "ours").unlink()
    assert told["received"] == bench.size, told
    return float(told["seconds"])


def _reference(bench: _Bench) -> float:
    """Each alone: who could do both at once at no cost would take as long as the slower."""
    target = bench.folder / "curl"
    os.sync()
    bench.curl.append(_timed(["curl", "-sS", "-o", str(target), f"{bench.url}/all"]))
    bench.sha256sum.append(_timed(["sha256sum", str(target)]))
    target.unlink()
    return max(bench.curl[-1], bench.sha256sum[-1])


def _most(bench: _Bench) -> None:
    """Both sides of D2 begin with it, since a disk that has just written this much is slower for a while."""
    bench.fetch(f"/until/{bench.size - bench.rest}", bench.size, bench.sha256, "rest")


def _rest(bench: _Bench) -> float:
    _most(bench)
    told = bench.fetch("/all", bench.size, bench.sha256, "rest")
    (bench.folder / "rest").unlink()
    # What was on its way when the first run was refused comes again; count only what had to come.
    return float(told["seconds"] * bench.rest / told["received"])


def _fresh(bench: _Bench) -> float:
    _most(bench)
    for left in bench.folder.glob("rest.part*"):
        left.unlink()
    told = bench.fetch(f"/first/{bench.rest}", bench.rest, bench.first_sha256, "fresh")
    (bench.folder / "fresh").unlink()
    assert told["received"] == bench.rest, told
    return float(told["seconds"])


def _timed(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def _seconds(values: list[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}"
