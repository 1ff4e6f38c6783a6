"""kill -9 at random moments: what came is not fetched again, and the file is right in the end."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from tests.integration.models.fetch_kit import Source, left_over, some_bytes, source
from tests.standins.faults import Fault, Place

MIB = 2**20
SIZE = 200 * MIB
KILLS = 10
#: What one connection gives: fast enough for a test, slow enough that ten kills fall into it.
SPEED = 3 * MIB


@pytest.fixture(scope="module")
def there() -> Iterator[Source]:
    made = Source(some_bytes(MIB) * (SIZE // MIB), direct=True)
    yield made
    made.close()


def start(there: Source, target: Path) -> subprocess.Popen[bytes]:
    file = there.file(credential=None)
    arguments = [file.url, there.front.authority, str(file.sha256), str(file.size_bytes), str(target)]
    return subprocess.Popen([sys.executable, "-m", "tests.integration.models.fetch_child", *arguments])


def until(happened: Callable[[], bool], child: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not happened() and child.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_ten_kills_cost_less_than_a_seventh(there: Source, tmp_path: Path):
    there.faults.set(Place.FRONT, "file", Fault(speed=SPEED))
    moments = sorted(Random(20).sample(range(2 * MIB, SIZE, MIB // 4), KILLS))
    for moment in moments:
        child = start(there, tmp_path / "x")
        until(lambda moment=moment: there.sent >= moment, child)  # type: ignore[misc]
        assert child.poll() is None, "killed before it is done"
        child.kill()
        child.wait()
    last = start(there, tmp_path / "x")
    assert last.wait(120) == 0
    assert left_over(tmp_path) == ["x"]
    assert (tmp_path / "x").read_bytes() == there.content.data
    assert there.sent / SIZE <= 1.15
    print(f"fetched {there.sent / SIZE:.3f} of the file in {len(there.front.requests())} requests and {KILLS} kills")


def test_ctrl_c_ends_it_at_once_though_the_server_is_silent(tmp_path: Path):
    """Threads that wait for bytes are woken, and what is there is noted."""
    with source(some_bytes(4 * MIB), direct=True) as there:
        there.faults.set(Place.FRONT, "file", Fault(stall_at=0.5))
        child = start(there, tmp_path / "x")
        until(lambda: (tmp_path / "x.part.json").exists(), child)
        child.send_signal(signal.SIGINT)
        assert child.wait(10) != 0
        assert left_over(tmp_path) == ["x.part", "x.part.json"]
        there.faults.clear()
        assert start(there, tmp_path / "x").wait(60) == 0
        assert there.sent <= 4.5 * MIB
