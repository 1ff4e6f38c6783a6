"""Our header check against the library's own parser: what we let through, it must accept too."""

from io import BytesIO

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dreamforge.checkpoints import header
from tests.tiny_sdxl import broken

safetensors = pytest.importorskip(
    "safetensors", reason="safetensors is not installed (pip install 'dreamforge[sdxl]')"
)
pytestmark = pytest.mark.sdxl

GOOD = broken.encode({"a": [2, 3], "b": [4], "empty": [0], "scalar": []})


def ours(raw: bytes) -> bool:
    try:
        header.read(BytesIO(raw), len(raw))
    except header.HeaderError:
        return False
    return True


def theirs(raw: bytes) -> bool:
    try:
        safetensors.deserialize(raw)
    except safetensors.SafetensorError:
        return False
    return True


def test_both_accept_a_good_file():
    assert ours(GOOD)
    assert theirs(GOOD)


@pytest.mark.parametrize("case", broken.CORPUS, ids=lambda case: case.name)
def test_ours_is_never_the_laxer_one(case: broken.Broken):
    raw = case.make(broken.encode(broken.MINIMAL))
    assert not ours(raw) or theirs(raw)


@settings(max_examples=1000, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(32, 126)), min_size=1, max_size=3))
@example([])
def test_damage_that_we_accept_is_accepted_by_the_library(edits: list[tuple[int, int]]):
    raw = bytearray(GOOD)
    for position, value in edits:
        raw[position] = value
    assert not ours(bytes(raw)) or theirs(bytes(raw))
