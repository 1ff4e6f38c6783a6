"""What callers may hand to a store, checked the same way by every store before anything is touched."""

import re
from collections.abc import Mapping

from dreamforge.keys import is_safe_key

LONGEST_TTL_SECONDS = 604_800  # a week, the most that S3's signature format allows

_DIGEST = re.compile(r"[0-9a-f]{64}")
_CONTENT_TYPE = re.compile(r"[a-z0-9.+-]+/[a-z0-9.+-]+")
_METADATA_NAME = re.compile(r"[a-z0-9-]+")
# S3 takes 2 KB of user metadata; the rest is left for the digest that a store adds.
_MOST_METADATA_BYTES = 1900


def require_key(key: str) -> None:
    """Raise ``ValueError`` unless the key is safe."""
    if not is_safe_key(key):
        raise ValueError(f"not a safe object key: {key!r}")


def require_prefix(prefix: str) -> None:
    """Raise ``ValueError`` unless some safe key could begin with ``prefix``; the empty prefix is every key."""
    if prefix and not is_safe_key(prefix.removesuffix("/")):
        raise ValueError(f"not a safe key prefix: {prefix!r}")


def require_digest(sha256: str) -> None:
    """Raise ``ValueError`` unless ``sha256`` is 64 lower-case hex digits."""
    if not _DIGEST.fullmatch(sha256):
        raise ValueError("sha256 must be 64 lower-case hex digits")


def require_content_type(content_type: str) -> None:
    """Raise ``ValueError`` unless it is a bare ``type/subtype``."""
    if not _CONTENT_TYPE.fullmatch(content_type):
        raise ValueError(f"not a content type: {content_type!r}")


def require_metadata(metadata: Mapping[str, str]) -> None:
    """Raise ``ValueError`` unless every store would give ``metadata`` back as it is."""
    for name, value in metadata.items():
        if not _METADATA_NAME.fullmatch(name) or name == "sha256":
            raise ValueError(f"not a metadata name: {name!r}")
        # Values travel as HTTP header values, which lose blanks at their ends.
        if not (value.isascii() and value.isprintable() and value == value.strip()):
            raise ValueError(f"the value of metadata {name!r} must be printable ASCII without blanks around it")
    if sum(len(name) + len(value) for name, value in metadata.items()) > _MOST_METADATA_BYTES:
        raise ValueError(f"metadata is over {_MOST_METADATA_BYTES} bytes")


def require_ttl(ttl_seconds: int) -> None:
    """Raise ``ValueError`` unless a link may live this long."""
    if not 1 <= ttl_seconds <= LONGEST_TTL_SECONDS:
        raise ValueError(f"ttl_seconds must be 1..{LONGEST_TTL_SECONDS}")


def require_filename(filename: str) -> None:
    """Raise ``ValueError`` unless a browser may be told to save under this name."""
    if not (1 <= len(filename) <= 255) or not filename.isprintable() or "/" in filename or "\\" in filename:
        raise ValueError(f"not a file name: {filename!r}")
