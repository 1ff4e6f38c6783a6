"""The fetcher against real servers: whole files, parts of them, and what may go wrong but need not end it."""

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from dreamforge_cli.models.errors import DiskError, IntegrityError, NetworkError
from dreamforge_cli.models.fetch.fetcher import fetch
from tests.integration.models.fetch_kit import FAST, KIB, Source, left_over, some_bytes, source
from tests.standins.faults import Fault, Place
from tests.standins.web import Exchange

SIZE = 3 * 1024 * KIB + 77


@pytest.fixture(scope="module")
def data() -> bytes:
    return some_bytes(SIZE)


@pytest.fixture
def there(data: bytes) -> Iterator[Source]:
    with source(data) as made:
        yield made


def test_a_file_comes_in_ranges_and_is_what_was_vouched_for(there: Source, data: bytes, tmp_path: Path):
    told: list[tuple[int, int | None]] = []
    target = tmp_path / "deep/model.safetensors"
    with there.client() as client:
        got = fetch(there.file(), target, client, FAST, lambda *now: told.append(now))
    assert target.read_bytes() == data
    assert (got.size_bytes, got.sha256, got.received_bytes) == (SIZE, hashlib.sha256(data).hexdigest(), SIZE)
    assert left_over(tmp_path) == ["deep/model.safetensors"]
    assert told == sorted(told)
    assert told[-1] == (SIZE, SIZE)
    asked = there.store.site.requests("GET")
    assert len({request.headers["range"] for request in asked}) == len(asked) == 13
    assert len(there.front.requests()) == 1, "the signed URL serves all ranges"


@pytest.mark.parametrize("size", [0, 1, 256 * KIB, 256 * KIB + 1])
@pytest.mark.parametrize("announced", [True, False])
def test_sizes_at_the_edges(tmp_path: Path, size: int, announced: bool):
    with source(some_bytes(size)) as there, there.client() as client:
        if size == 0 and not announced:
            there.fault(Fault(ignores_range=True))
        file = there.file() if announced else there.file(size_bytes=None)
        assert fetch(file, tmp_path / "x", client, FAST).size_bytes == size
        assert (tmp_path / "x").read_bytes() == some_bytes(size)


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("fault", [Fault(ignores_range=True), Fault(ignores_range=True, no_length=True)])
def test_a_server_without_ranges_gives_one_stream(
    there: Source, data: bytes, tmp_path: Path, fault: Fault, announced: bool
):
    there.fault(fault)
    with there.client() as client:
        file = there.file() if announced else there.file(size_bytes=None)
        fetch(file, tmp_path / "x", client, FAST)
    assert (tmp_path / "x").read_bytes() == data
    assert len(there.store.site.requests("GET")) == 1


def test_git_s_hash_will_do_for_a_small_file(tmp_path: Path):
    text = b'{"_class_name": "StableDiffusionXLPipeline"}'
    blob = hashlib.sha1(b"blob %d\0" % len(text) + text, usedforsecurity=False).hexdigest()
    with source(text) as there, there.client() as client:
        got = fetch(there.file(sha256=None, git_blob=blob), tmp_path / "x", client, FAST)
        assert got.sha256 == hashlib.sha256(text).hexdigest()
        with pytest.raises(IntegrityError):
            fetch(there.file(sha256=None, git_blob="0" * 40), tmp_path / "y", client, FAST)
        with pytest.raises(IntegrityError, match="vouches"):
            fetch(there.file(sha256=None), tmp_path / "y", client, FAST)
    assert left_over(tmp_path) == ["x"]


def test_what_is_in_place_is_not_fetched_again_unless_its_bytes_are_others(
    there: Source, data: bytes, tmp_path: Path
):
    (tmp_path / "x").write_bytes(data)
    with there.client() as client:
        assert fetch(there.file(), tmp_path / "x", client, FAST).received_bytes == 0
        assert there.front.requests() == []
        (tmp_path / "x").write_bytes(data[:-1] + b"?")
        fetch(there.file(), tmp_path / "x", client, FAST)
    assert (tmp_path / "x").read_bytes() == data


@pytest.mark.parametrize("size_known", [True, False])
def test_a_cut_connection_costs_nothing_but_its_rest(there: Source, data: bytes, tmp_path: Path, size_known: bool):
    there.fault(Fault(cut_at=0.5, times=5))
    with there.client() as client:
        file = there.file() if size_known else there.file(size_bytes=None)
        fetch(file, tmp_path / "x", client, FAST)
    assert (tmp_path / "x").read_bytes() == data
    assert there.sent == SIZE


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("place", Place)
def test_passing_trouble_passes(there: Source, tmp_path: Path, status: int, place: Place):
    there.fault(Fault(status=status, times=2, headers={"Retry-After": "0"}), place)
    with there.client() as client:
        fetch(there.file(), tmp_path / "x", client, FAST)
    assert left_over(tmp_path) == ["x"]


def test_a_server_that_likes_one_connection_gets_one(there: Source, data: bytes, tmp_path: Path):
    """The other workers give up, and leave their work to the one that has success."""
    answer, one = there.store.site.answer, threading.Lock()

    def only_one(ask: Exchange) -> None:
        if one.acquire(blocking=False):
            try:
                answer(ask)
            finally:
                one.release()
        else:
            ask.reply(503, b"", {})

    there.store.site.answer = only_one
    there.fault(Fault(speed=4 * 1024 * KIB))
    with there.client() as client:
        # Patient enough to be there when the one in front has got on.
        fetch(there.file(), tmp_path / "x", client, replace(FAST, pause_seconds=0.2, longest_pause_seconds=1))
    assert (tmp_path / "x").read_bytes() == data


def test_a_signed_url_that_expires_is_asked_for_again(there: Source, data: bytes, tmp_path: Path):
    there.fault(Fault(status=403, after=4, times=1))
    with there.client() as client:
        fetch(there.file(), tmp_path / "x", client, replace(FAST, connections=1))
    assert (tmp_path / "x").read_bytes() == data
    assert len(there.front.requests()) == 2
    assert there.sent == SIZE


def test_a_failed_download_goes_on_where_it_was(there: Source, data: bytes, tmp_path: Path):
    there.fault(Fault(status=500, after=8))
    with there.client() as client:
        with pytest.raises(NetworkError, match="answers 500"):
            fetch(there.file(), tmp_path / "x", client, replace(FAST, connections=1))
        assert left_over(tmp_path) == ["x.part", "x.part.json"]
        there.faults.clear()
        got = fetch(there.file(), tmp_path / "x", client, FAST)
    assert got.received_bytes == SIZE - 8 * 256 * KIB
    assert (tmp_path / "x").read_bytes() == data
    assert there.sent == SIZE
    assert left_over(tmp_path) == ["x"]


@pytest.mark.parametrize("ignores_if_range", [True, False])
def test_a_file_that_changed_meanwhile_starts_over(tmp_path: Path, data: bytes, ignores_if_range: bool):
    """The first half is of the old file; its bytes must not be in the new one."""
    with source(some_bytes(SIZE, seed=2)) as there, there.client() as client:
        there.fault(Fault(status=500, after=6))
        file = there.file(sha256=hashlib.sha256(data).hexdigest())
        with pytest.raises(NetworkError):
            fetch(file, tmp_path / "x", client, FAST)
        there.fault(Fault(replaced_by=data, times=1))
        if ignores_if_range:
            there.store.put("file", type(there.content)(data), "another")
            there.fault(Fault(ignores_if_range=True))
        fetch(file, tmp_path / "x", client, FAST)
    assert (tmp_path / "x").read_bytes() == data
    assert any("if-range" in request.headers for request in there.store.site.requests())


def test_a_file_that_changes_under_way_starts_over(tmp_path: Path, data: bytes):
    with source(some_bytes(SIZE, seed=2)) as there, there.client() as client:
        there.fault(Fault(replaced_by=data, after=5, times=1))
        fetch(there.file(sha256=hashlib.sha256(data).hexdigest()), tmp_path / "x", client, FAST)
    assert (tmp_path / "x").read_bytes() == data


def test_machines_that_disagree_about_the_etag_are_believed_by_the_hash(there: Source, data: bytes, tmp_path: Path):
    answer, numbers = there.store.site.answer, count()

    def another_each_time(ask: Exchange) -> None:
        there.store.put("file", there.content, f"machine-{next(numbers) % 3}")
        answer(ask)

    there.store.site.answer = another_each_time
    with there.client() as client:
        fetch(there.file(), tmp_path / "x", client, FAST)
    assert (tmp_path / "x").read_bytes() == data


def test_a_file_that_keeps_changing_is_given_up(there: Source, tmp_path: Path):
    there.fault(Fault(ignores_range=True, cut_at=0.9))
    with there.client() as client, pytest.raises(NetworkError, match="given up after 3 starts"):
        fetch(there.file(), tmp_path / "x", client, FAST)
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("spoilt", ["state", "part", "json"])
def test_spoilt_leftovers_never_make_a_wrong_file(there: Source, data: bytes, tmp_path: Path, spoilt: str):
    there.fault(Fault(status=500, after=8))
    with there.client() as client:
        with pytest.raises(NetworkError):
            fetch(there.file(), tmp_path / "x", client, FAST)
        there.faults.clear()
        sidecar, part = tmp_path / "x.part.json", tmp_path / "x.part"
        text = sidecar.read_text()
        if spoilt == "state":
            mark = text.index("sha256-ctx-little:") + 20
            sidecar.write_text(text[:mark] + ("0" if text[mark] != "0" else "1") + text[mark + 1 :])
        elif spoilt == "part":
            part.write_bytes(b"short")
        else:
            sidecar.write_text(text[: len(text) // 2])
        try:
            fetch(there.file(), tmp_path / "x", client, FAST)
        except IntegrityError:
            assert spoilt == "state"
            assert left_over(tmp_path) == [], "and the next try starts from the beginning"
            fetch(there.file(), tmp_path / "x", client, FAST)
    assert (tmp_path / "x").read_bytes() == data


def test_after_a_power_cut_only_what_was_synced_counts(there: Source, data: bytes, tmp_path: Path):
    there.fault(Fault(status=500, after=8))
    with there.client() as client:
        with pytest.raises(NetworkError):
            fetch(there.file(), tmp_path / "x", client, FAST)
        there.faults.clear()
        sidecar, part = tmp_path / "x.part.json", tmp_path / "x.part"
        told, came = json.loads(sidecar.read_text()), part.read_bytes()
        sidecar.write_text(json.dumps(told | {"boot": "another"}))
        left = bytearray(len(came))  # What was not synced never reached the disk.
        for start, end in told["synced"]["done"]:
            left[start:end] = came[start:end]
        part.write_bytes(left)
        fetch(there.file(), tmp_path / "x", client, FAST)
    assert (tmp_path / "x").read_bytes() == data


def test_a_link_in_the_way_is_not_followed(there: Source, tmp_path: Path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "x.part").symlink_to(tmp_path / "precious")
    with there.client() as client, pytest.raises(DiskError):
        fetch(there.file(), tmp_path / "x", client, FAST)
    assert (tmp_path / "precious").read_text() == "mine"


def test_connections_to_one_host_are_counted(there: Source, data: bytes, tmp_path: Path):
    answer, now, most = there.store.site.answer, [0], [0]

    def counted(ask: Exchange) -> None:
        with there.store.site.lock:
            now[0] += 1
            most[0] = max(now[0], most[0])
        try:
            answer(ask)
        finally:
            with there.store.site.lock:
                now[0] -= 1

    there.store.site.answer = counted
    there.fault(Fault(speed=8 * 1024 * KIB))
    with there.client(connections_per_host=2) as client:
        fetch(there.file(), tmp_path / "x", client, replace(FAST, connections=6))
    assert (tmp_path / "x").read_bytes() == data
    assert most[0] == 2
