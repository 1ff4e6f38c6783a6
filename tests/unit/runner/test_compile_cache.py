"""The file of compiled kernels: what is written comes back, and nothing else is ever handed to torch."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dreamforge_runner.backends.sdxl import compile_cache
from dreamforge_runner.backends.sdxl.compile_cache import CompileCache, Ignored

FACTS = {"torch": "2.13.0", "driver": "580.1", "device": "H100", "plan": {"compile": "regional"}}
KERNELS = b"kernels\n\x00\xff" * 1000


@pytest.fixture
def cache(tmp_path: Path) -> CompileCache:
    written = CompileCache(tmp_path / "compiled", FACTS)
    written.add(KERNELS)
    return written


def test_what_was_added_comes_back_beside_what_was_there(cache: CompileCache, tmp_path: Path):
    another = CompileCache(tmp_path / "compiled", dict(reversed(FACTS.items())))
    assert another.read() == [KERNELS]
    another.add(b"newer")
    cache.add(b"")
    assert cache.read() == [KERNELS, b"newer", b""]
    assert [path.name for path in cache.path.parent.iterdir()] == [cache.path.name]


def test_the_same_again_is_the_newest_and_there_once(cache: CompileCache):
    cache.add(b"other")
    cache.add(KERNELS)
    assert cache.read() == [b"other", KERNELS]


def test_the_newest_are_kept(cache: CompileCache):
    for number in range(20):
        cache.add(str(number).encode())
    assert cache.read() == [str(number).encode() for number in range(4, 20)]


def test_a_file_grows_to_its_bound_and_holds_the_newest_in_any_case(
    cache: CompileCache, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(compile_cache, "_MOST_BYTES", 10)
    for part in (b"123456", b"7890"):
        cache.add(part)
    assert cache.read() == [b"123456", b"7890"]
    cache.add(b"x")
    assert cache.read() == [b"7890", b"x"]
    cache.add(KERNELS)
    assert cache.read() == [KERNELS]


def test_what_torch_can_not_read_is_left_out(cache: CompileCache):
    cache.add(b"readable")
    cache.refuse([KERNELS])
    cache.add(b"newer")
    assert cache.read() == [b"readable", b"newer"]


def test_what_must_not_be_used_is_replaced(cache: CompileCache):
    cache.path.write_bytes(cache.path.read_bytes()[:-1])
    cache.add(b"newer")
    assert cache.read() == [b"newer"]


def test_no_file_is_no_kernels(tmp_path: Path):
    assert CompileCache(tmp_path / "absent", FACTS).read() == []


@pytest.mark.parametrize("fact", FACTS)
def test_each_fact_has_its_own_file(fact: str, cache: CompileCache):
    other = CompileCache(cache.path.parent, {**FACTS, fact: "another"})
    assert other.read() == []


def test_a_file_under_another_name_is_not_taken_for_ours(cache: CompileCache):
    other = CompileCache(cache.path.parent, {**FACTS, "torch": "2.14.0"})
    other.path.write_bytes(cache.path.read_bytes())
    with pytest.raises(Ignored, match="other versions"):
        other.read()


def _with_sizes(sizes: object) -> Callable[[bytes], bytes]:
    def spoil(data: bytes) -> bytes:
        header, _, rest = data.partition(b"\n")
        return json.dumps({**json.loads(header), "sizes": sizes}).encode() + b"\n" + rest

    return spoil


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
        *map(_with_sizes, ([], [1], [len(KERNELS) + 1, -1], [str(len(KERNELS))], len(KERNELS), None)),
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
