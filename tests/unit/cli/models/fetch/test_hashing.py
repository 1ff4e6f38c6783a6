"""A hash that can be saved: against hashlib, and where libcrypto can't be had."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamforge_cli.models.fetch import hashing
from dreamforge_cli.models.fetch.hashing import InOrder, PlainSha256


@pytest.fixture(params=["libcrypto", "plain"])
def _library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "plain":
        monkeypatch.setattr(hashing, "_library", lambda: None)
    elif hashing._library() is None:
        pytest.skip("no libcrypto that lets its state be saved")


def test_this_machine_can_save_a_hash():
    """Python's own hashlib stands on a libcrypto here; without it every resume would read its prefix again."""
    assert not isinstance(hashing.new_sha256(), PlainSha256)


@given(st.lists(st.binary(max_size=300), max_size=8), st.integers(0, 8))
def test_saved_anywhere_it_goes_on_as_if_nothing_had_been(pieces: list[bytes], cut: int):
    first = InOrder(None, git=False)
    for piece in pieces[:cut]:
        first.update(piece)
    at, state = first.mark()
    first.update(b"what comes after the mark")
    second = InOrder(None, git=False, at=at, state=state)
    assert second.at == sum(len(piece) for piece in pieces[:cut])
    for piece in pieces[cut:]:
        second.update(piece)
    assert second.sha256 == second.sha256 == hashlib.sha256(b"".join(pieces)).hexdigest()


@pytest.mark.usefixtures("_library")
def test_every_way_gives_the_same_hashes():
    data = bytes(range(256)) * 300
    hasher = InOrder(len(data), git=True)
    for at in range(0, len(data), 777):
        hasher.update(data[at : at + 777])
    assert hasher.sha256 == hashlib.sha256(data).hexdigest()
    assert hasher.git_blob == hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    assert hasher.mark() == (0, None), "git's hash can't go on from a mark"


def test_without_libcrypto_it_starts_at_the_beginning(monkeypatch: pytest.MonkeyPatch):
    saved = InOrder(None, git=False)
    saved.update(b"some")
    at, state = saved.mark()
    monkeypatch.setattr(hashing, "_library", lambda: None)
    plain = InOrder(None, git=False, at=at, state=state)
    assert plain.at == 0
    plain.update(b"some")
    assert plain.mark() == (0, None)
    assert plain.sha256 == saved.sha256


@pytest.mark.parametrize(
    "state", ["", "nonsense", "sha256-ctx-little:", "sha256-ctx-little:" + "zz" * 112, "x:" + "00" * 112]
)
def test_a_state_of_another_kind_is_no_state(state: str):
    assert hashing.restored(state) is None
    assert InOrder(None, git=False, at=5, state=state).at == 0
