"""What the contract tests of the object stores share: a store of each kind and a way to follow its links."""

import hashlib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from dreamforge.storage.base import ObjectInfo, ObjectNotFound, Storage
from dreamforge.storage.filesystem import FilesystemStore
from dreamforge.storage.links import PATH, Forbidden
from dreamforge.storage.s3 import S3Store
from tests.servers import s3

STORES = ["filesystem", pytest.param("s3", marks=pytest.mark.s3)]
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 6


@dataclass(frozen=True)
class Kit:
    """A store and how its links are followed: status, headers, body."""

    store: Storage
    follow: Callable[[str], tuple[int, Message, bytes]]


@contextmanager
def open_kit(request: pytest.FixtureRequest, folder: Path) -> Iterator[Kit]:
    """An empty store of the kind that ``request.param`` names."""
    if request.param == "filesystem":
        store = FilesystemStore(folder / "objects", "a signing key of the tests")
        yield Kit(store, lambda url: follow_locally(store, url))
        return
    server: s3.S3Server = request.getfixturevalue("s3_server")
    remote = S3Store(server.location())
    yield Kit(remote, http)
    remote.close()


def http(url: str, method: str = "GET", body: bytes | None = None) -> tuple[int, Message, bytes]:
    request = urllib.request.Request(url, data=body, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def follow_locally(store: FilesystemStore, url: str) -> tuple[int, Message, bytes]:
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
