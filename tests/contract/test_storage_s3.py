"""What only S3 can get wrong: verbs, privacy, hosts, buckets, credentials, lost and cut connections."""

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from dreamforge.storage.base import ObjectNotFound, StorageError, StorageUnavailable
from dreamforge.storage.s3 import S3Location, S3Store
from tests.contract.storage_kit import PNG, http, link, put
from tests.servers import s3

CREDENTIALS = {"access_key_id": "someone", "secret_access_key": "a secret of someone"}

pytestmark = pytest.mark.s3


@pytest.fixture
def s3_store(s3_server: s3.S3Server) -> Iterator[S3Store]:
    store = S3Store(s3_server.location())
    yield store
    store.close()


def test_a_get_link_gives_no_other_verb(s3_store: S3Store) -> None:
    put(s3_store, "jobs/a/1.png")
    url = link(s3_store, "jobs/a/1.png")
    assert http(url, "PUT", b"forged")[0] == 403
    assert http(url, "DELETE")[0] == 403
    assert http(url)[2] == PNG


def test_objects_are_private(s3_store: S3Store) -> None:
    put(s3_store, "jobs/a/1.png")
    assert http(link(s3_store, "jobs/a/1.png").partition("?")[0])[0] == 403


def test_links_name_the_public_host_and_work_there(s3_server: s3.S3Server) -> None:
    public = s3_server.endpoint.replace("127.0.0.1", "localhost")
    store = S3Store(replace(s3_server.location(), public_endpoint=public))
    put(store, "jobs/a/1.png")
    url = link(store, "jobs/a/1.png")
    assert url.startswith(public + "/")
    assert http(url)[0] == 200
    assert http(url.replace("localhost", "127.0.0.1"))[0] == 403
    store.close()


def test_many_first_writers_make_one_bucket(s3_server: s3.S3Server) -> None:
    store = S3Store(s3_server.location())
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: put(store, f"first/{number}.png"), range(8)))
    assert len(list(store.list("first/"))) == 8
    store.ensure_bucket()
    store.close()


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


@contextmanager
def cutting_proxy(upstream: str, after_bytes: int) -> Iterator[tuple[str, list[bytes]]]:
    """A relay that ends each request early: it passes ``after_bytes`` on, then says that the client is done.

    Gives its URL and the beginnings of the requests it saw.
    """
    seen: list[bytes] = []
    target = urlsplit(upstream)
    listener = socket.create_server(("127.0.0.1", 0))

    def relay(client: socket.socket) -> None:
        with client, socket.create_connection((target.hostname, target.port or 80), timeout=10) as server:
            client.settimeout(10)
            passed = 0
            seen.append(b"")
            while passed < after_bytes and (data := client.recv(min(65536, after_bytes - passed))):
                server.sendall(data)
                seen[-1] += data[: 4096 - len(seen[-1])] if len(seen[-1]) < 4096 else b""
                passed += len(data)
            server.shutdown(socket.SHUT_WR)
            while data := server.recv(65536):
                client.sendall(data)

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError):
                relay(client)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", seen
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def test_an_upload_cut_short_stores_nothing(s3_server: s3.S3Server) -> None:
    """versitygw 1.8.0 keeps the short body when a request has no signed checksum, so this is about our request."""
    location = s3_server.location()
    whole = S3Store(location)
    put(whole, "jobs/a/1.png", b"old")
    with cutting_proxy(s3_server.endpoint, after_bytes=300_000) as (endpoint, seen):
        cut = S3Store(replace(location, endpoint=endpoint))
        for key in ("jobs/a/1.png", "jobs/a/2.png"):
            with pytest.raises(StorageError):
                put(cut, key, b"x" * 1_000_000)
        cut.close()
    assert whole.get("jobs/a/1.png") == b"old"
    assert [info.key for info in whole.list("")] == ["jobs/a/1.png"]
    # Over plain HTTP the signature covers the body anyway; over TLS only this header says what must arrive.
    assert all(re.search(rb"SignedHeaders=[^,]*;x-amz-checksum-sha256[;,]", request) for request in seen)
    assert len(seen) >= 2
    whole.close()


def test_check_gives_up_on_a_server_that_is_silent() -> None:
    """Its file descriptors are open and nobody answers: no error comes from the network itself."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        location = S3Location("test", endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}", **CREDENTIALS)
        store = S3Store(location)
        with pytest.raises(StorageUnavailable):
            store.check()
        store.close()
