"""The storage port: a handful of verbs that every store keeps, held by one contract suite.

Stores are synchronous and safe to use from several threads. Keys are those of :mod:`dreamforge.keys`; a key
that is not :func:`~dreamforge.keys.is_safe_key` raises ``ValueError`` before anything is touched.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from dreamforge.errors import DreamForgeError, Unavailable


class StorageError(DreamForgeError):
    """The store refused or lost an operation; trying again may help (maps to ``storage_error``)."""


class DiskFull(StorageError):
    """The store has no space left (maps to ``disk_full``)."""


class StorageUnavailable(StorageError, Unavailable):
    """The store can't be reached."""


class ObjectNotFound(StorageError):
    """No object has this key."""


@dataclass(frozen=True)
class ObjectInfo:
    """One stored object. ``sha256`` is the hex digest that was stored with it, not computed on reading."""

    key: str
    size_bytes: int
    sha256: str | None = None
    content_type: str | None = None
    modified_at: datetime | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SignedUrl:
    """A link that reads one object, by GET only, until ``expires_at``."""

    url: str
    expires_at: datetime


class Storage(Protocol):
    """What every store can do."""

    def put(
        self,
        key: str,
        data: bytes,
        *,
        content_type: str,
        sha256: str,
        metadata: Mapping[str, str] | None = None,
    ) -> ObjectInfo:
        """Store ``data`` whole or not at all, replacing an older object; durable when this returns.

        ``sha256`` is the hex digest of ``data``; it is checked by the store where the store can and kept
        beside the object. ``metadata`` keys are lower case ``[a-z0-9-]``, values ASCII.
        Raises ``StorageError`` and its kinds.
        """
        ...

    def get(self, key: str) -> bytes:
        """The object's bytes; raises ``ObjectNotFound``."""
        ...

    def head(self, key: str) -> ObjectInfo | None:
        """Size, digest and metadata of one object; ``None`` when there is none."""
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object below ``prefix`` in key order; digest and metadata may be missing (see ``head``)."""
        ...

    def delete(self, key: str) -> None:
        """Remove the object; removing what is not there is success."""
        ...

    def sign_get(self, key: str, *, ttl_seconds: int, filename: str, content_type: str) -> SignedUrl:
        """A link to one object. Makes no call to the store; the object need not exist."""
        ...

    def check(self) -> None:
        """A real round trip that proves reads and writes would work; raises ``StorageUnavailable``."""
        ...
