"""Signed links of the filesystem store: what is signed, how it is verified. Pure functions of their arguments.

    /v1/objects/<key>?expires=<unix seconds>&filename=<name>&content_type=<type>&signature=<hex>

The signature is HMAC-SHA256 over the verb, the key and every parameter, so a link reads exactly one object, by GET,
until it expires. Nothing about it is stored: changing ``DF_SIGNING_KEY`` withdraws every link.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, urlencode

from dreamforge.errors import DreamForgeError
from dreamforge.keys import is_safe_key
from dreamforge.storage.checks import LONGEST_TTL_SECONDS

PATH = "/v1/objects/"
PARAMETERS = frozenset({"expires", "filename", "content_type", "signature"})

_EXPIRES = re.compile(r"[1-9][0-9]{0,11}")
_SIGNATURE = re.compile(r"[0-9a-f]{64}")


class Forbidden(DreamForgeError):
    """The link is tampered with, expired, or was signed for another key (HTTP 403)."""


@dataclass(frozen=True)
class VerifiedGet:
    """A link that was signed here and is still valid: what to serve, and as what."""

    key: str
    filename: str
    content_type: str
    expires_at: datetime


def signed_path(secret: bytes, key: str, *, expires: int, filename: str, content_type: str) -> str:
    """The path and query of a link to ``key``; the API puts its own origin before it."""
    query = {
        "expires": str(expires),
        "filename": filename,
        "content_type": content_type,
        "signature": _signature(secret, key, str(expires), filename, content_type),
    }
    return f"{PATH}{quote(key)}?{urlencode(query, quote_via=quote)}"


def verify(secret: bytes, key: str, params: Mapping[str, str], *, now: float) -> VerifiedGet:
    """Check a link's key and (decoded) query parameters; raises :class:`Forbidden`. ``now`` is unix seconds."""
    refused = Forbidden("The link is not valid")
    if set(params) != PARAMETERS or not is_safe_key(key):
        raise refused
    expires, given = params["expires"], params["signature"]
    if not _EXPIRES.fullmatch(expires) or not _SIGNATURE.fullmatch(given):
        raise refused
    expected = _signature(secret, key, expires, params["filename"], params["content_type"])
    if not hmac.compare_digest(expected, given):
        raise refused
    if int(expires) > now + LONGEST_TTL_SECONDS:
        raise refused  # no link lives this long; the clock or the key is not what it should be
    if now >= int(expires):
        raise Forbidden("The link has expired")
    expires_at = datetime.fromtimestamp(int(expires), UTC)
    return VerifiedGet(key, params["filename"], params["content_type"], expires_at)


def content_disposition(filename: str) -> str:
    """``Content-Disposition`` that saves as ``filename``, with an ASCII form for old clients (RFC 6266)."""
    plain = re.sub(r"[^A-Za-z0-9 !#$&+.^_`|~()\[\],=@{}-]", "_", filename)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"


def _signature(secret: bytes, *parts: str) -> str:
    # JSON keeps the parts apart: no two lists of strings give the same text.
    message = json.dumps(["dreamforge link 1", "GET", *parts]).encode("ascii")
    return hmac.new(secret, message, hashlib.sha256).hexdigest()
