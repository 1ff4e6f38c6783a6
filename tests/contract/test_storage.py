"""What every object store promises, over the filesystem store and over S3 on a real server."""

import hashlib
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.message import Message
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

import pytest

from dreamforge.storage.base import (
    ObjectInfo,
    ObjectNotFound,
    Storage,
    StorageError,
    StorageUnavailable,
)
from dreamforge.storage.filesystem import FilesystemStore
from dreamforge.storage.links import PATH, Forbidden
from dreamforge.storage.s3 import S3Store
from tests.servers import s3

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 6
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


@dataclass(frozen=True)
class Kit:
    """A store and how its links are followed: status, headers, body."""

    store: Storage
    follow: Callable[[str], tuple[int, Message, bytes]]


@pytest.fixture(params=["filesystem", pytest.param("s3", marks=pytest.mark.s3)])
def kit(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kit]:
    if request.param == "filesystem":
        store = FilesystemStore(tmp_path / "objects", "a signing key of the tests")
        yield Kit(store, lambda url: _follow_locally(store, url))
        return
    server: s3.S3Server = request.getfixturevalue("s3_server")
    remote = S3Store(server.location())
    yield Kit(remote, _http)
    remote.close()


@pytest.fixture
def store(kit: Kit) -> Storage:
    return kit.store


@pytest.fixture
def s3_store(s3_server: s3.S3Server) -> Iterator[S3Store]:
    store = S3Store(s3_server.location())
    yield store
    store.close()


def _http(url: str, method: str = "GET", body: bytes | None = None) -> tuple[int, Message, bytes]:
    request = urllib.request.Request(url, data=body, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def _follow_locally(store: FilesystemStore, url: str) -> tuple[int, Message, bytes]:
    """What the API's route does with a link, without the HTTP around it (the API's own tests have that)."""
    parts = urlsplit(url)
    headers = Message()
    try:
        link = store.verify_get(parts.path.removeprefix(PATH), dict(parse_qsl(parts.query)))
        body = store.get(link.key)
    except Forbidden:
        return 403, headers, b""
    except ObjectNotFound:
        return 404, headers, b""
    headers["Content-Type"] = link.content_type
    headers["Content-Disposition"] = f'attachment; filename="{link.filename}"'
    return 200, headers, body


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def put(store: Storage, key: str, data: bytes = PNG, metadata: dict[str, str] | None = None) -> ObjectInfo:
    return store.put(key, data, content_type="image/png", sha256=digest(data), metadata=metadata)


def link(store: Storage, key: str, ttl_seconds: int = 60) -> str:
    return store.sign_get(key, ttl_seconds=ttl_seconds, filename="image.png", content_type="image/png").url


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


def test_a_link_reads_the_object_as_an_attachment(kit: Kit) -> None:
    put(kit.store, "jobs/a/1.png")
    before = datetime.now(UTC)
    signed = kit.store.sign_get("jobs/a/1.png", ttl_seconds=60, filename="my image.png", content_type="image/png")
    status, headers, body = kit.follow(signed.url)
    assert (status, body) == (200, PNG)
    assert headers["Content-Type"] == "image/png"
    assert headers["Content-Disposition"].startswith('attachment; filename="my image.png"')
    assert timedelta(seconds=58) < signed.expires_at - before <= timedelta(seconds=60)


def test_a_link_to_nothing_is_not_found(kit: Kit) -> None:
    put(kit.store, "jobs/a/1.png")
    assert kit.follow(link(kit.store, "jobs/a/2.png"))[0] == 404


def test_an_edited_link_is_refused(kit: Kit) -> None:
    put(kit.store, "jobs/a/1.png")
    put(kit.store, "jobs/a/2.png")
    url = link(kit.store, "jobs/a/1.png")
    assert kit.follow(url)[0] == 200
    edits = {
        "key": url.replace("a/1.png", "a/2.png"),
        "last digit": url[:-1] + ("0" if url[-1] != "0" else "1"),
        "file name": url.replace("image.png", "image.exe"),
        "type": url.replace("image%2Fpng", "text%2Fhtml"),
        "lifetime": re.sub(r"(X-Amz-Expires=|expires=)\d+", r"\g<1>90000000", url),
        "one more": f"{url}&more=1",
        "no signature": re.sub(r"&(X-Amz-S|s)ignature=[0-9a-f]+", "", url),
        "nothing": url.partition("?")[0],
    }
    for name, edited in edits.items():
        assert edited != url, name
        # S3 calls a request that it can't read malformed, before it looks at the signature.
        refusals = (400, 403) if name in ("lifetime", "no signature") else (403,)
        assert kit.follow(edited)[0] in refusals, name


def test_an_expired_link_is_refused(kit: Kit) -> None:
    put(kit.store, "jobs/a/1.png")
    url = link(kit.store, "jobs/a/1.png", ttl_seconds=1)
    deadline = time.monotonic() + 10
    while (status := kit.follow(url)[0]) == 200 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert status == 403


@pytest.mark.parametrize("ttl_seconds", [0, -1, 604_801])
def test_a_link_can_not_live_for_any_time(store: Storage, ttl_seconds: int) -> None:
    with pytest.raises(ValueError):
        link(store, "a/b.png", ttl_seconds)


@pytest.mark.parametrize("filename", ["", "a/b", "a\r\nX: y", "x" * 256])
def test_a_link_can_not_carry_a_hostile_file_name(store: Storage, filename: str) -> None:
    with pytest.raises(ValueError):
        store.sign_get("a/b.png", ttl_seconds=60, filename=filename, content_type="image/png")


def test_check_passes_and_leaves_nothing(store: Storage) -> None:
    store.check()
    store.check()
    assert list(store.list("")) == []


def test_check_of_a_root_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StorageUnavailable, match="DF_STORE_ROOT"):
        FilesystemStore(tmp_path / "file" / "objects").check()


@pytest.mark.s3
def test_a_get_link_gives_no_other_verb(s3_store: S3Store) -> None:
    put(s3_store, "jobs/a/1.png")
    url = link(s3_store, "jobs/a/1.png")
    assert _http(url, "PUT", b"forged")[0] == 403
    assert _http(url, "DELETE")[0] == 403
    assert _http(url)[2] == PNG


@pytest.mark.s3
def test_objects_are_private(s3_store: S3Store) -> None:
    put(s3_store, "jobs/a/1.png")
    assert _http(link(s3_store, "jobs/a/1.png").partition("?")[0])[0] == 403


@pytest.mark.s3
def test_links_name_the_public_host_and_work_there(s3_server: s3.S3Server) -> None:
    public = s3_server.endpoint.replace("127.0.0.1", "localhost")
    store = S3Store(replace(s3_server.location(), public_endpoint=public))
    put(store, "jobs/a/1.png")
    url = link(store, "jobs/a/1.png")
    assert url.startswith(public + "/")
    assert _http(url)[0] == 200
    assert _http(url.replace("localhost", "127.0.0.1"))[0] == 403
    store.close()


@pytest.mark.s3
def test_many_first_writers_make_one_bucket(s3_server: s3.S3Server) -> None:
    store = S3Store(s3_server.location())
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: put(store, f"first/{number}.png"), range(8)))
    assert len(list(store.list("first/"))) == 8
    store.ensure_bucket()
    store.close()


@pytest.mark.s3
def test_wrong_keys_are_an_error_that_tells_no_secret(s3_server: s3.S3Server) -> None:
    store = S3Store(replace(s3_server.location(), secret_access_key="a wrong secret"))
    with pytest.raises(StorageError, match="403") as caught:
        store.get("a/b.png")
    assert not isinstance(caught.value, ObjectNotFound)
    with pytest.raises(StorageUnavailable) as refused:
        store.check()
    for text in (str(caught.value), str(refused.value)):
        assert "a wrong secret" not in text
        assert s3_server.access_key_id not in text
    store.close()


@pytest.mark.s3
def test_a_server_that_goes_and_comes_back(tmp_path: Path) -> None:
    process = s3.own_process(tmp_path)
    if process is None:
        pytest.skip(s3.available() or "only a foreign S3 server can be had, and it must not be stopped")
    process.start()
    store = S3Store(process.server.location(f"test-{uuid4().hex[:8]}"))
    try:
        put(store, "a/b.png")
        store.check()
        process.stop()
        with pytest.raises(StorageUnavailable):
            store.check()
        for call in (lambda: put(store, "a/c.png"), lambda: store.get("a/b.png"), lambda: store.head("a/b.png")):
            with pytest.raises(StorageUnavailable):
                call()
        assert link(store, "a/b.png")  # signing needs no server
        process.start()
        store.check()
        assert store.get("a/b.png") == PNG
        assert store.head("a/c.png") is None
    finally:
        store.close()
        process.stop()
