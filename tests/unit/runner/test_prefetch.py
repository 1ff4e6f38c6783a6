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


def test_files_are_left_alone_when_they_are_too_large_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    paths = [tmp_path / name for name in ("unet", "vae")]
    for path in paths:
        path.write_bytes(bytes(100))
    monkeypatch.setattr(prefetch, "available_bytes", lambda: 399)
    assert prefetch.begin(*paths) == []
    monkeypatch.setattr(prefetch, "available_bytes", lambda: 400)
    readers = prefetch.begin(*paths)
    for reader in readers:
        reader.join(10)
    assert len(readers) == 2


def test_the_kernel_is_asked_for_every_byte_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(prefetch, "_HINT_BYTES", 1000)
    asked: list[int] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _, start, length, advice: asked.append(start))
    (tmp_path / "unet").write_bytes(bytes(3001))
    for thread in prefetch.hint(tmp_path / "unet", tmp_path / "absent"):
        thread.join(10)
    assert asked == [0, 1000, 2000, 3000]
