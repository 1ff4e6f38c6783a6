"""What every object store promises, over the filesystem store and over S3 on a real server."""

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dreamforge.storage.base import ObjectNotFound, Storage, StorageError, StorageUnavailable
from dreamforge.storage.filesystem import FilesystemStore
from tests.contract.storage_kit import PNG, STORES, digest, link, open_kit, put

UNSAFE = [
    "",
    "/",
    "a//b",
    "../a",
    "a/../b",
    "a/./b",
    ".meta/a",
    "a/.hidden",
    "/etc/passwd",
    "a\\b",
    "a b",
    "a\n",
    "ä",
    "a/",
]


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    with open_kit(request, tmp_path) as kit:
        yield kit.store


@pytest.mark.parametrize("size", [0, 1, 1500, 5 * 1024 * 1024])
def test_bytes_come_back_as_they_were_put(store: Storage, size: int) -> None:
    data = hashlib.shake_256(b"seed").digest(size)
    put(store, "jobs/a/image.png", data)
    assert store.get("jobs/a/image.png") == data


def test_head_tells_what_was_put_and_put_tells_the_same(store: Storage) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)
    said = put(store, "jobs/a/1.png", metadata={"item-index": "3", "note": 'a "quoted", = value; %41'})
    found = store.head("jobs/a/1.png")
    assert found is not None
    assert found.metadata == {"item-index": "3", "note": 'a "quoted", = value; %41'}
    assert (found.key, found.size_bytes, found.sha256) == ("jobs/a/1.png", len(PNG), digest(PNG))
    assert found.content_type == "image/png"
    assert found.modified_at is not None
    assert before <= found.modified_at <= datetime.now(UTC) + timedelta(seconds=2)
    assert replace(said, modified_at=None) == replace(found, modified_at=None)


def test_a_second_put_replaces_bytes_and_metadata(store: Storage) -> None:
    put(store, "a/b.png", b"old bytes, longer", metadata={"first": "1"})
    store.put("a/b.png", b"new", content_type="image/jpeg", sha256=digest(b"new"), metadata={"second": "2"})
    found = store.head("a/b.png")
    assert store.get("a/b.png") == b"new"
    assert found is not None
    assert (found.size_bytes, found.sha256, found.content_type) == (3, digest(b"new"), "image/jpeg")
    assert found.metadata == {"second": "2"}


def test_bytes_with_another_digest_are_refused_and_change_nothing(store: Storage) -> None:
    put(store, "a/b.png", b"old")
    with pytest.raises(StorageError):
        store.put("a/b.png", b"new", content_type="image/png", sha256=digest(b"other"))
    assert store.get("a/b.png") == b"old"
    with pytest.raises(StorageError):
        store.put("a/c.png", b"new", content_type="image/png", sha256=digest(b"other"))
    assert store.head("a/c.png") is None


def test_what_is_missing(store: Storage) -> None:
    """Also before the store holds anything at all."""
    for _ in range(2):
        with pytest.raises(ObjectNotFound):
            store.get("jobs/none.png")
        assert store.head("jobs/none.png") is None
        assert list(store.list("jobs/")) == []
        store.delete("jobs/none.png")
        put(store, "other/a.png")


def test_a_prefix_is_not_an_object(store: Storage) -> None:
    put(store, "jobs/a/1.png")
    assert store.head("jobs/a") is None
    with pytest.raises(ObjectNotFound):
        store.get("jobs/a")
    store.delete("jobs/a")
    assert store.get("jobs/a/1.png") == PNG
    assert store.head("jobs/a/1.png/below") is None


def test_delete_removes_one_object_and_may_be_repeated(store: Storage) -> None:
    put(store, "jobs/a/1.png")
    put(store, "jobs/a/2.png")
    for _ in range(2):
        store.delete("jobs/a/1.png")
    assert store.head("jobs/a/1.png") is None
    assert [info.key for info in store.list("jobs/a/")] == ["jobs/a/2.png"]
    put(store, "jobs/a/1.png", b"again")
    assert store.get("jobs/a/1.png") == b"again"


def test_list_is_in_key_order_and_only_below_the_prefix(store: Storage) -> None:
    # '-' and '.' sort before '/', digits and letters after it: an order by folder would differ.
    keys = [
        "a/b-c.png",
        "a/b.png",
        "a/b/1.png",
        "a/b/10.png",
        "a/b/2.png",
        "a/b0.png",
        "a/c/x/y.png",
        "ab/1.png",
        "b.png",
    ]
    for number, key in enumerate(reversed(keys)):
        put(store, key, b"x" * number)
    assert [info.key for info in store.list("")] == keys
    assert [info.key for info in store.list("a/")] == keys[:7]
    assert [info.key for info in store.list("a/b/")] == keys[2:5]
    assert [info.key for info in store.list("a/b")] == keys[:6]
    assert [info.size_bytes for info in store.list("a/b/")] == [6, 5, 4]
    assert all(info.modified_at is not None for info in store.list(""))
    assert list(store.list("zzz/")) == []


def test_list_goes_past_one_page(store: Storage) -> None:
    keys = [f"many/{number:04}.png" for number in range(1005)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda key: put(store, key, b"x"), keys))
    assert [info.key for info in store.list("many/")] == keys


@pytest.mark.parametrize("key", UNSAFE)
def test_unsafe_keys_are_refused_by_every_verb(store: Storage, key: str) -> None:
    for call in (
        lambda: put(store, key),
        lambda: store.get(key),
        lambda: store.head(key),
        lambda: store.delete(key),
        lambda: link(store, key),
    ):
        with pytest.raises(ValueError):
            call()


@pytest.mark.parametrize("prefix", ["..", "../", "a/../", "/", ".meta/", ".tmp/"])
def test_unsafe_prefixes_are_refused(store: Storage, prefix: str) -> None:
    with pytest.raises(ValueError):
        list(store.list(prefix))


@pytest.mark.parametrize(
    "metadata", [{"Upper": "x"}, {"sha256": "x"}, {"a": "ü"}, {"a": "x\r\nY: z"}, {"a": " x"}, {"a": "x" * 2000}]
)
def test_metadata_that_would_not_come_back_is_refused(store: Storage, metadata: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        put(store, "a/b.png", metadata=metadata)
    assert store.head("a/b.png") is None


def test_concurrent_puts_of_one_key_leave_one_whole_object(store: Storage) -> None:
    bodies = [bytes([number]) * 200_000 for number in range(8)]
    stop = threading.Event()

    def read() -> set[str]:
        seen = set()
        while not stop.is_set():
            seen.add(digest(store.get("race/one.png")))
        return seen

    put(store, "race/one.png", bodies[0], metadata={"body": "0"})
    with ThreadPoolExecutor(9) as pool:
        reader = pool.submit(read)
        for _ in range(3):
            list(
                pool.map(
                    lambda number: put(store, "race/one.png", bodies[number], metadata={"body": str(number)}),
                    range(8),
                )
            )
        stop.set()
        seen = reader.result()
    found = store.head("race/one.png")
    assert seen <= {digest(body) for body in bodies}
    assert found is not None
    assert found.sha256 == digest(store.get("race/one.png")) == digest(bodies[int(found.metadata["body"])])
    assert [info.key for info in store.list("race/")] == ["race/one.png"]


def test_concurrent_puts_and_deletes_in_one_folder(store: Storage) -> None:
    """A put beside the delete of the last neighbour: folders come and go under it, the object must not."""

    def turn(worker: int) -> None:
        for number in range(15):
            key = f"busy/folder/{worker}-{number}.png"
            put(store, key, b"x")
            assert store.get(key) == b"x"
            store.delete(key)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(turn, range(4)))
    assert list(store.list("busy/")) == []


def test_check_passes_and_leaves_nothing(store: Storage) -> None:
    store.check()
    store.check()
    assert list(store.list("")) == []


def test_check_of_a_root_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StorageUnavailable, match="DF_STORE_ROOT"):
        FilesystemStore(tmp_path / "file" / "objects").check()
