"""A file at a source: a lasting address that redirects to signed ones on a second host, both real HTTP servers."""

import hashlib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import httpx
from pydantic import SecretStr

from dreamforge.models import FileRole
from dreamforge_cli.models.fetch.guard import open_client
from dreamforge_cli.models.fetch.limits import Limits
from dreamforge_cli.models.sources.base import Credential, ResolvedFile
from tests.standins.faults import Fault, Faults, Place
from tests.standins.store import Content, Store, instead, serve
from tests.standins.web import Exchange, Site

KIB = 1024
#: Small pieces and little patience, but for silence: on a busy machine a byte may be late.
FAST = Limits(
    segment_bytes=256 * KIB,
    window_bytes=1280 * KIB,
    tries=3,
    pause_seconds=0.01,
    longest_pause_seconds=0.05,
    stall_seconds=5,
    longest_retry_after_seconds=1,
    spare_bytes=0,
)
TOKEN = "hf_a-token-nobody-else-may-see"


def some_bytes(size: int, seed: int = 1) -> bytes:
    """The same for the same seed."""
    return Random(seed).randbytes(size)


class Source:
    """Front (the lasting address) and store; ``direct`` serves the file at the front itself."""

    def __init__(self, data: bytes, *, direct: bool = False) -> None:
        self.content = Content(data)
        self.faults = Faults()
        self.store = Store(self.faults)
        self.store.put("file", self.content)
        self.front = Site(self._answer)
        self.url_seconds: float = 3600
        self._direct = direct

    @property
    def authorities(self) -> list[str]:
        return [self.front.authority, self.store.site.authority]

    @property
    def sent(self) -> int:
        """Bytes of the file that went out."""
        return self.store.site.sent_bytes + self.front.sent_bytes

    def fault(self, fault: Fault, place: Place = Place.STORE) -> None:
        self.faults.set(place, "file", fault)

    def file(self, **changes: Any) -> ResolvedFile:
        """As an adapter would resolve it; with a token for the front."""
        data = self.content.data
        assert isinstance(data, bytes)
        given = ResolvedFile(
            path="model.safetensors",
            role=FileRole.CHECKPOINT,
            url=f"{self.front.url}/lasting/model.safetensors",
            size_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            credential=Credential(self.front.url, SecretStr(TOKEN)),
        )
        return replace(given, **changes)

    def client(self, **options: Any) -> httpx.Client:
        return open_client(self.authorities, **options)

    def _answer(self, ask: Exchange) -> None:
        fault = self.faults.next(Place.FRONT, "file", counts=True)
        if instead(ask, fault):
            return
        if self._direct:
            serve(ask, self.content, f'"{self.content.sha256}"', fault, {})
        else:
            ask.redirect(302, self.store.sign("file", "model.safetensors", self.url_seconds))

    def close(self) -> None:
        try:
            self.front.close()
        finally:
            self.store.close()


@contextmanager
def source(data: bytes, *, direct: bool = False) -> Iterator[Source]:
    made = Source(data, direct=direct)
    try:
        yield made
    finally:
        made.close()


def left_over(folder: Path) -> list[str]:
    """Names of all files below a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def server_context(certificate: Path, heard: list[str | None]) -> ssl.SSLContext:
    """A TLS server's side; ``heard`` gets the names that clients ask for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.sni_callback = lambda _connection, name, _context: heard.append(name)
    return context
