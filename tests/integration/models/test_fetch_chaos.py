"""Many faults in random order: the file is right in the end, or there is none, and nothing is left running."""

import contextlib
import os
import threading
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from dreamforge_cli.models.errors import ModelError
from dreamforge_cli.models.fetch.fetcher import fetch
from tests.integration.models.fetch_kit import FAST, KIB, left_over, some_bytes, source
from tests.standins.faults import Fault, Place

SIZE = 2048 * KIB + 5
ROUNDS = 12


def some_fault(random: Random) -> Fault:
    kinds = [
        lambda: Fault(status=random.choice([401, 403, 404, 408, 410, 416, 429, 500, 503])),
        lambda: Fault(cut_at=random.random()),
        lambda: Fault(stall_at=random.random()),
        lambda: Fault(flipped_at=random.randrange(SIZE)),
        lambda: Fault(range_off_by=random.choice([-1, 1])),
        lambda: Fault(length_off_by=random.choice([-9, 9])),
        lambda: Fault(ignores_range=True, cut_at=random.choice([None, random.random()])),
        lambda: Fault(extra={"ETag": f'"{random.random()}"'}),
        lambda: Fault(login_page=True),
        lambda: Fault(location="{self}"),
        lambda: Fault(gzip_zeros=SIZE),
    ]
    fault = random.choice(kinds)()
    fault.after, fault.times = random.choice([0, 0, 3]), random.choice([1, None])
    return fault


def open_files() -> list[str]:
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a server's thread ends its connection meanwhile
            found.append(os.readlink(link))
    return found


@pytest.mark.parametrize("seed", range(6))
def test_no_order_of_faults_makes_a_wrong_file(tmp_path: Path, seed: int):
    random = Random(seed)
    data = some_bytes(SIZE, seed)
    with source(data) as there, there.client() as client:
        outcomes = []
        for _ in range(ROUNDS):
            there.faults.clear()
            there.fault(some_fault(random), random.choice([Place.STORE, Place.STORE, Place.FRONT]))
            try:
                fetch(there.file(), tmp_path / "x", client, replace(FAST, stall_seconds=0.4))
                outcomes.append("fetched")
                assert (tmp_path / "x").read_bytes() == data
                assert left_over(tmp_path) == ["x"]
                (tmp_path / "x").unlink()
            except ModelError as error:
                outcomes.append(type(error).__name__)
                assert not (tmp_path / "x").exists()
        there.faults.clear()
        fetch(there.file(), tmp_path / "x", client, FAST)
        assert (tmp_path / "x").read_bytes() == data
        assert len(set(outcomes)) >= 2, outcomes
        assert [thread.name for thread in threading.enumerate() if "_guarded" in thread.name] == []
        assert [link for link in open_files() if link.startswith(str(tmp_path))] == []
