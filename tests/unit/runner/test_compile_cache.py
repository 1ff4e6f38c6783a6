"""The file of compiled kernels: what is written comes back, and nothing else is ever handed to torch."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dreamforge_runner.backends.sdxl.compile_cache import CompileCache, Ignored

FACTS = {"torch": "2.13.0", "driver": "580.1", "device": "H100", "plan": {"compile": "regional"}}
KERNELS = b"kernels\n\x00\xff" * 1000


@pytest.fixture
def cache(tmp_path: Path) -> CompileCache:
    written = CompileCache(tmp_path / "compiled", FACTS)
    written.write(KERNELS)
    return written


def test_what_was_written_comes_back(cache: CompileCache, tmp_path: Path):
    assert CompileCache(tmp_path / "compiled", dict(reversed(FACTS.items()))).read() == KERNELS
    cache.write(b"newer")
    assert cache.read() == b"newer"
    assert [path.name for path in cache.path.parent.iterdir()] == [cache.path.name]


def test_no_file_is_no_kernels(tmp_path: Path):
    assert CompileCache(tmp_path / "absent", FACTS).read() is None


@pytest.mark.parametrize("fact", FACTS)
def test_each_fact_has_its_own_file(fact: str, cache: CompileCache):
    other = CompileCache(cache.path.parent, {**FACTS, fact: "another"})
    assert other.read() is None


def test_a_file_under_another_name_is_not_taken_for_ours(cache: CompileCache):
    other = CompileCache(cache.path.parent, {**FACTS, "torch": "2.14.0"})
    other.path.write_bytes(cache.path.read_bytes())
    with pytest.raises(Ignored, match="other versions"):
        other.read()


def _header_of_another_length(data: bytes) -> bytes:
    header, _, rest = data.partition(b"\n")
    return json.dumps({**json.loads(header), "size": 1}).encode() + b"\n" + rest


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: data[:-5] + b"y" + data[-4:],
        lambda data: b"",
        lambda data: b"\xff\xfe" + data,
        lambda data: b"[]\n" + data,
        lambda data: b"{}",
        _header_of_another_length,
    ],
)
def test_a_damaged_file_is_not_read(spoil: Callable[[bytes], bytes], cache: CompileCache):
    cache.path.write_bytes(spoil(cache.path.read_bytes()))
    with pytest.raises(Ignored):
        cache.read()


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_what_others_may_write_is_not_read(mode: int, cache: CompileCache):
    cache.path.chmod(mode)
    with pytest.raises(Ignored, match="other users"):
        cache.read()


def test_a_folder_that_others_may_write_is_not_read(cache: CompileCache):
    cache.path.parent.chmod(0o777)
    with pytest.raises(Ignored, match="other users"):
        cache.read()


def test_a_folder_in_place_of_the_file_is_not_read(tmp_path: Path):
    cache = CompileCache(tmp_path, FACTS)
    cache.path.mkdir()
    with pytest.raises(Ignored, match="can't be read"):
        cache.read()
