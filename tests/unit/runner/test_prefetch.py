"""Reading ahead: all of the file, whatever its size, and never a reason to fail."""

import os
from pathlib import Path

import pytest

from dreamforge_runner import prefetch


@pytest.mark.parametrize("size", [0, 1, 10_000, 10_001])
def test_every_byte_is_read_once(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(prefetch, "_CHUNK_BYTES", 1000)
    read: list[tuple[int, int]] = []
    really = os.preadv

    def preadv(handle: int, buffers: list[bytearray], start: int) -> int:
        count = really(handle, buffers, start)
        read.append((start, count))
        return count

    monkeypatch.setattr(os, "preadv", preadv)
    path = tmp_path / "model"
    path.write_bytes(bytes(size))
    for reader in prefetch.begin(path):
        reader.join(10)
    assert sum(count for _, count in read) == size
    assert len({start for start, _ in read}) == len(read)


def test_what_is_not_there_is_no_reason_to_fail(tmp_path: Path):
    assert prefetch.begin(tmp_path / "absent") == []
    assert prefetch.begin(Path("\0")) == []


def test_a_file_larger_than_half_the_memory_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "model"
    path.write_bytes(bytes(100))
    monkeypatch.setattr(prefetch, "available_bytes", lambda: 199)
    assert prefetch.begin(path) == []


def test_memory_is_read_from_the_system(tmp_path: Path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  16 kB\nMemAvailable:   12 kB\n")
    assert prefetch.available_bytes(meminfo) == 12 * 1024
    meminfo.write_text("MemAvailable: lots\n")
    assert prefetch.available_bytes(meminfo) == 0
    assert prefetch.available_bytes(tmp_path / "absent") == 0
