"""What an HTTP answer means for a download: bytes to take, a reason to try again, or the end.

Pure: status and headers in, one of ours out. Nothing an answer says is believed that can be checked: lengths and
ranges must fit what was asked for, and a file name it suggests is never read.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from dreamforge_cli.models.errors import BadReference, IntegrityError, ModelError, NetworkError, NotAllowed

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15}|\*)")
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]{1,200}"')
_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
#: What a signed URL answers once it has expired, by store.
_EXPIRED = frozenset({400, 401, 403, 404, 410})


class TryAgain(Exception):
    """Something that may go better in a moment; ``after`` is how many seconds the server asks for."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.after = after


class Expired(TryAgain):
    """The signed URL is of no use any more; the lasting one gives a new one."""


class Changed(Exception):
    """The file at the source is not the one whose first bytes we have: start over."""


@dataclass(frozen=True)
class Known:
    """What we hold about the file before asking."""

    size: int | None = None
    etag: str | None = None


@dataclass(frozen=True)
class Body:
    """The bytes an answer brings: from ``start`` to ``end``; ``end`` is unknown when the server doesn't say."""

    start: int
    end: int | None
    total: int | None
    etag: str | None
    #: The server was asked for a range and sends everything.
    whole: bool


def judge(status: int, headers: Mapping[str, str], asked: tuple[int, int | None], known: Known) -> Body:
    """An answer of 200 or 206; raises what is wrong with it."""
    if (encoding := headers.get("content-encoding", "identity").strip().lower()) not in ("identity", ""):
        raise IntegrityError(
            f"the answer is compressed ({encoding[:20]!r}) though plain bytes were asked for; refused"
        )
    if headers.get("content-type", "").partition(";")[0].strip().lower() in ("text/html", "application/xhtml+xml"):
        raise NotAllowed("the answer is a web page, not a file: the source wants a login, or a proxy is in the way")
    etag = _etag(headers.get("etag"))
    length = _length(headers.get("content-length"))
    body = _whole(length, etag) if status == 200 else _range(headers.get("content-range"), length, asked, etag)
    if known.etag and etag and etag != known.etag:
        raise Changed("its ETag is another one now")
    if body.whole and asked[0] > 0:
        raise Changed("the server sends all of it though a later part was asked for")
    if known.size is None and body.total is None and not body.whole:
        raise IntegrityError("the server sends a part without saying how long the file is")
    if known.size is not None and body.total is not None and body.total != known.size:
        raise IntegrityError(f"the server has {body.total} bytes where {known.size} were announced")
    return body


def refusal(status: int, headers: Mapping[str, str], said: str, where: str, *, signed: bool) -> Exception:
    """What to raise for any other status; ``signed`` says that a lasting URL led here."""
    told = f"{where} answers {status}" + (f": {said}" if said else "")
    if status in _TRY_AGAIN:
        return TryAgain(told, retry_after(headers.get("retry-after")))
    if signed and status in _EXPIRED:
        return Expired(told)
    if status == 416 and headers.get("content-range", "").strip() == "bytes */0":
        return IntegrityError("the server has the file, and it is empty")
    if status == 416:
        return Changed("the server has no such range")
    return _final(status, told)


def _final(status: int, told: str) -> ModelError:
    if status == 401:
        return NotAllowed(f"{told}; it wants a token (HF_TOKEN or CIVITAI_TOKEN), or refuses the one it got")
    if status in (403, 451):
        return NotAllowed(f"{told}; the account has no access to it (a licence to accept, early access?)")
    if status in (404, 410):
        return BadReference(f"{told}; the file is not there (any more)")
    return NetworkError(f"{told}, which is no answer to a download")


def retry_after(text: str | None, now: datetime | None = None) -> float | None:
    """Seconds, from either form of the header; ``None`` for what is neither."""
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - (now or datetime.now(UTC))).total_seconds())


def plain(text: str, secrets: frozenset[str]) -> str:
    """A stranger's words, fit for a terminal: one short line, nothing to interpret, and none of our secrets."""
    for secret in secrets:
        text = text.replace(secret, "[token]")
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:200]


def looks_like_a_page(start: bytes) -> bool:
    """Whether a file's first bytes are HTML, whatever its type says."""
    return start[:64].lstrip().lower().startswith((b"<!doctype html", b"<html"))


def _whole(length: int | None, etag: str | None) -> Body:
    return Body(0, length, length, etag, whole=True)


def _range(text: str | None, length: int | None, asked: tuple[int, int | None], etag: str | None) -> Body:
    match = _CONTENT_RANGE.fullmatch((text or "").strip())
    if match is None:
        raise IntegrityError("the server answers a range without saying which bytes it sends")
    start, end = int(match[1]), int(match[2]) + 1
    total = None if match[3] == "*" else int(match[3])
    wanted = min((value for value in (asked[1], total) if value is not None), default=end)
    if start != asked[0] or end != wanted or end <= start:
        raise IntegrityError(f"bytes {asked[0]} onwards were asked for; the server sends bytes {start} to {end - 1}")
    if length is not None and length != end - start:
        raise IntegrityError(f"the server announces {length} bytes for a range of {end - start}")
    return Body(start, end, total, etag, whole=False)


def _length(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else None


def _etag(text: str | None) -> str | None:
    return text if text is not None and _STRONG_ETAG.fullmatch(text) else None
