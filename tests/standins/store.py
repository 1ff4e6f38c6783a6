"""The second host: signed URLs that end, ranges, ETags, and every way to be wrong about them."""

import gzip
import hashlib
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import quote, urlencode

from tests.standins.faults import NONE, Fault, Faults, Place
from tests.standins.web import Exchange, Site

_CHUNK = 1 << 18
#: Members of gzip may follow each other: this one, of zeros, is sent as often as it takes.
_MEMBER_BYTES = 1 << 24
_MEMBER = gzip.compress(bytes(_MEMBER_BYTES), mtime=0)
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass(frozen=True)
class Content:
    """A file's bytes, in memory or on disk."""

    data: bytes | Path

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.data) if isinstance(self.data, bytes) else self.data.stat().st_size

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """Pieces of ``[start, end)``."""
        if isinstance(self.data, bytes):
            for at in range(start, end, _CHUNK):
                yield self.data[at : min(at + _CHUNK, end)]
            return
        with self.data.open("rb") as file:
            file.seek(start)
            while start < end and (piece := file.read(min(_CHUNK, end - start))):
                start += len(piece)
                yield piece

    @cached_property
    def sha256(self) -> str:
        """In lower-case hexadecimal."""
        digest = hashlib.sha256()
        for piece in self.read(0, self.size):
            digest.update(piece)
        return digest.hexdigest()


class Store:
    """Signed URLs to named contents on an origin of its own; credentials of anyone else have no business here."""

    def __init__(self, faults: Faults, host: str = "127.0.0.2") -> None:
        self.faults = faults
        self.site = Site(self._answer, host)
        self._contents: dict[str, Content] = {}
        self._etags: dict[str, str] = {}
        self._key = secrets.token_hex(8)

    def put(self, name: str, content: Content, etag: str | None = None) -> None:
        """Keep a content under a name; the ETag is its SHA-256 unless given."""
        self._contents[name] = content
        self._etags[name] = f'"{etag or content.sha256}"'

    def sign(self, name: str, file_name: str, seconds: float = 3600) -> str:
        """A URL that anyone may use for so long."""
        until = f"{time.time() + seconds:.3f}"
        query = {
            "response-content-disposition": f'attachment; filename="{file_name}";',
            "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
            "X-Amz-Expires": until,
            "X-Amz-Signature": self._signature(name, until),
        }
        return f"{self.site.url}/{quote(name)}?{urlencode(query)}"

    def expire(self) -> None:
        """Every URL signed so far is refused from now on."""
        self._key = secrets.token_hex(8)

    def _signature(self, name: str, until: str) -> str:
        return hashlib.sha256(f"{self._key}:{name}:{until}".encode()).hexdigest()

    def _answer(self, ask: Exchange) -> None:
        name = "/".join(ask.parts)
        if ask.path.startswith("/elsewhere"):
            ask.json(200, {"you": "went elsewhere"})
            return
        until = ask.query.get("X-Amz-Expires", "0")
        good = secrets.compare_digest(self._signature(name, until), ask.query.get("X-Amz-Signature", ""))
        if not good or float(until) < time.time():
            text = (
                "<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
            )
            ask.reply(403, text.encode(), {"Content-Type": "application/xml"})
            return
        if "authorization" in ask.headers:
            # As S3 does it: two ways to sign in one request are one too many.
            text = "<Error><Code>InvalidArgument</Code><Message>Only one auth mechanism allowed</Message></Error>"
            ask.reply(400, text.encode(), {"Content-Type": "application/xml"})
            return
        self._serve(ask, name)

    def _serve(self, ask: Exchange, name: str) -> None:
        fault = self.faults.next(Place.STORE, name, counts=ask.command == "GET")
        if fault.replaced_by is not None:
            if self._contents[name].data != fault.replaced_by:
                self.put(name, Content(fault.replaced_by), secrets.token_hex(16))
            fault = NONE
        if instead(ask, fault):
            return
        disposition = ask.query.get("response-content-disposition", "attachment")
        serve(ask, self._contents[name], self._etags[name], fault, {"Content-Disposition": disposition})

    def close(self) -> None:
        """Stop."""
        self.site.close()


def instead(ask: Exchange, fault: Fault) -> bool:
    """Answer with the fault when it is one that replaces the whole answer."""
    if fault.login_page:
        ask.html(200, "Log in to continue")
    elif fault.location is not None:
        here = f"{ask.site.url}{ask.path}"
        ask.redirect(302, fault.location.replace("{self}", here))
    elif fault.status is not None:
        body = fault.body if fault.body is not None else b'{"error": "as asked"}'
        ask.reply(fault.status, body, {"Content-Type": "application/json", **fault.headers})
    else:
        return False
    return True


def serve(ask: Exchange, content: Content, etag: str, fault: Fault, headers: dict[str, str]) -> None:
    """A file as object stores serve it (RFC 9110): one range, ``If-Range``, 416."""
    if fault.gzip_zeros:
        _zeros(ask, fault.gzip_zeros, etag)
        return
    headers = {"ETag": etag, "Accept-Ranges": "bytes", "Content-Type": "binary/octet-stream"} | headers | fault.extra
    span = _span(ask, content.size, etag, fault)
    if span is None:
        start, end, status = 0, content.size, 200
    else:
        (start, end), status = span, 206
        if start >= content.size:
            ask.reply(416, b"", {"Content-Range": f"bytes */{content.size}"})
            return
        headers["Content-Range"] = f"bytes {start + fault.range_off_by}-{end - 1}/{content.size}"
    _send(ask, status, headers, content, start, end, fault)


def _span(ask: Exchange, size: int, etag: str, fault: Fault) -> tuple[int, int] | None:
    match = _RANGE.fullmatch(ask.headers.get("range", ""))
    if match is None or fault.ignores_range or not any(match.groups()):
        return None
    condition = ask.headers.get("if-range")
    if condition is not None and condition != etag and not fault.ignores_if_range:
        return None
    first, last = match.groups()
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(size, int(last) + 1 if last else size)


def _send(
    ask: Exchange, status: int, headers: dict[str, str], content: Content, start: int, end: int, fault: Fault
) -> None:
    ask.send_response(status)
    if fault.no_length:
        ask.close_connection = True
        headers = headers | {"Connection": "close"}
    else:
        headers = headers | {"Content-Length": str(end - start + fault.length_off_by)}
    for name, value in headers.items():
        ask.send_header(name, value)
    ask.end_headers()
    if ask.command == "HEAD":
        return
    if fault.length_off_by:
        ask.close_connection = True
    stop = start + int((end - start) * min(fault.stall_at or 1.0, fault.cut_at or 1.0))
    _pieces(ask, content, start, stop if stop < end else end, fault)
    if fault.stall_at is not None:
        ask.site.ending.wait(60)
    if stop < end:
        ask.close_connection = True


def _pieces(ask: Exchange, content: Content, start: int, end: int, fault: Fault) -> None:
    at = start
    for piece in content.read(start, end):
        if fault.flipped_at is not None and at <= fault.flipped_at < at + len(piece):
            wrong = bytearray(piece)
            wrong[fault.flipped_at - at] ^= 1
            piece = bytes(wrong)
        at += len(piece)
        if fault.speed is None:
            _write(ask, piece)
        elif not _slowly(ask, piece, fault.speed):
            return


def _slowly(ask: Exchange, piece: bytes, speed: int) -> bool:
    step = max(1, speed // 50)
    for at in range(0, len(piece), step):
        _write(ask, piece[at : at + step])
        if ask.site.ending.wait(step / speed):
            return False
    return True


def _zeros(ask: Exchange, size: int, etag: str) -> None:
    ask.send_response(200)
    ask.close_connection = True
    for name, value in {"ETag": etag, "Content-Encoding": "gzip", "Connection": "close"}.items():
        ask.send_header(name, value)
    ask.end_headers()
    if ask.command == "HEAD":
        return
    for _ in range(-(-size // _MEMBER_BYTES)):
        _write(ask, _MEMBER)


def _write(ask: Exchange, data: bytes) -> None:
    """Counted first: who has the last byte may ask at once how many there were."""
    ask.site.count(len(data))
    try:
        ask.wfile.write(data)
    except OSError:
        ask.site.count(-len(data))
        raise
