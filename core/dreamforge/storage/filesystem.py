"""Objects as files: the store of the embedded stack.

    root/<key>                 the bytes
    root/.meta/<key>@.json     digest, content type and metadata (``@`` is in no key, so no folder has that name)
    root/.tmp/                 files being written; what a crash leaves here is swept an hour later
    root/.lock                 held while an object's two files are swapped in

A reader sees an old object or a new one, never a mixture: bytes are written aside, brought to the disk and renamed.
The sidecar says which bytes it describes, so after a crash between the two renames ``head`` gives no digest rather
than a wrong one.
"""

import errno
import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from pydantic import BaseModel, ValidationError

from dreamforge.errors import ConfigurationError
from dreamforge.storage import links, tree
from dreamforge.storage.base import (
    DiskFull,
    ObjectInfo,
    ObjectNotFound,
    SignedUrl,
    StorageError,
    StorageUnavailable,
)
from dreamforge.storage.checks import (
    require_content_type,
    require_digest,
    require_filename,
    require_key,
    require_metadata,
    require_prefix,
    require_ttl,
)

_META = ".meta"
_TMP = ".tmp"
_LOCK = ".lock"
_LEFTOVER_SECONDS = 3600.0


class _Sidecar(BaseModel):
    """What is known about one object; ``size`` and ``mtime_ns`` name the bytes it is about."""

    sha256: str
    content_type: str
    metadata: dict[str, str]
    size: int
    mtime_ns: int


class FilesystemStore:
    """A :class:`~dreamforge.storage.base.Storage` below one folder, shared by any number of processes on one machine.

    ``signing_key`` may be missing in a process that signs no links (a runner).
    """

    def __init__(self, root: Path, signing_key: str | None = None, *, now: Callable[[], float] = time.time) -> None:
        self._root = root.absolute()
        self._secret = signing_key.encode() if signing_key else None
        self._now = now
        self._swept = False

    def put(
        self,
        key: str,
        data: bytes,
        *,
        content_type: str,
        sha256: str,
        metadata: Mapping[str, str] | None = None,
    ) -> ObjectInfo:
        require_key(key)
        require_digest(sha256)
        require_content_type(content_type)
        require_metadata(metadata or {})
        if hashlib.sha256(data).hexdigest() != sha256:
            raise StorageError(f"put {key}: the bytes do not have the digest they came with")
        with _translated(f"put {key}"):
            self._sweep_once()
            body, side = self._new_tmp(), self._new_tmp()
            try:
                written = tree.write_new(self._root, body, data)
                sidecar = _Sidecar(
                    sha256=sha256,
                    content_type=content_type,
                    metadata=dict(metadata or {}),
                    size=written.st_size,
                    mtime_ns=written.st_mtime_ns,
                )
                tree.write_new(self._root, side, sidecar.model_dump_json().encode())
                self._swap_in(key, body, side)
            except BaseException:
                tree.remove(self._root, body)
                tree.remove(self._root, side)
                raise
        return _info(key, written, sidecar)

    def get(self, key: str) -> bytes:
        with self.open(key) as file, _translated(f"get {key}"):
            return file.read()

    def open(self, key: str) -> BinaryIO:
        """The object as a file to read from; raises ``ObjectNotFound``. The caller closes it."""
        require_key(key)
        with _translated(f"get {key}"):
            file = tree.open_file(self._root, _parts(key))
        if file is None:
            raise ObjectNotFound(f"get {key}: no such object")
        return os.fdopen(file, "rb")

    def path_of(self, key: str) -> Path:
        """Where the object's bytes are, for a server that sends files by path; raises ``ObjectNotFound``."""
        self.open(key).close()
        return self._root.joinpath(*_parts(key))

    def head(self, key: str) -> ObjectInfo | None:
        require_key(key)
        with _translated(f"head {key}"):
            found = self._look(key)
            if found is None or found.sha256 is not None:
                return found
            with self._locked(fcntl.LOCK_SH):  # its two files may just be being swapped in
                return self._look(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        require_prefix(prefix)
        folder = tuple(prefix.split("/")[:-1])
        with _translated(f"list {prefix}"):
            for parts, found in tree.walk(self._root, folder):
                key = "/".join(parts)
                if key.startswith(prefix):
                    yield _info(key, found, None)

    def delete(self, key: str) -> None:
        require_key(key)
        with _translated(f"delete {key}"):
            if self._look(key) is None:
                return
            with self._locked(fcntl.LOCK_EX):
                for parts in (_parts(key), _side_parts(key)):
                    tree.remove(self._root, parts)
                    tree.prune(self._root, parts[:-1])

    def sign_get(self, key: str, *, ttl_seconds: int, filename: str, content_type: str) -> SignedUrl:
        """A link relative to the API's origin (it begins with ``/v1/objects/``)."""
        require_key(key)
        require_ttl(ttl_seconds)
        require_filename(filename)
        require_content_type(content_type)
        expires = int(self._now()) + ttl_seconds
        url = links.signed_path(
            self._signing_secret(), key, expires=expires, filename=filename, content_type=content_type
        )
        return SignedUrl(url, datetime.fromtimestamp(expires, UTC))

    def verify_get(self, key: str, params: Mapping[str, str]) -> links.VerifiedGet:
        """Check a link that this store signed; raises :class:`~dreamforge.storage.links.Forbidden`."""
        return links.verify(self._signing_secret(), key, params, now=self._now())

    def check(self) -> None:
        probe, content = self._new_tmp(), secrets.token_bytes(16)
        try:
            tree.write_new(self._root, probe, content)
            file = tree.open_file(self._root, probe)
            if file is None:
                raise FileNotFoundError(errno.ENOENT, "the probe file vanished")
            with os.fdopen(file, "rb") as reader:
                if reader.read() != content:
                    raise OSError(errno.EIO, "the probe file reads back otherwise")
            tree.remove(self._root, probe)
        except OSError as error:
            raise StorageUnavailable(f"DF_STORE_ROOT {self._root}: {error.strerror}") from error

    def _look(self, key: str) -> ObjectInfo | None:
        body = tree.open_file(self._root, _parts(key))
        if body is None:
            return None
        with os.fdopen(body, "rb") as file:
            found = os.fstat(file.fileno())
        sidecar = self._sidecar(key)
        if sidecar and (sidecar.size, sidecar.mtime_ns) != (found.st_size, found.st_mtime_ns):
            sidecar = None
        return _info(key, found, sidecar)

    def _sidecar(self, key: str) -> _Sidecar | None:
        file = tree.open_file(self._root, _side_parts(key))
        if file is None:
            return None
        with os.fdopen(file, "rb") as reader:
            try:
                return _Sidecar.model_validate_json(reader.read())
            except ValidationError:
                return None

    def _swap_in(self, key: str, body: tuple[str, ...], side: tuple[str, ...]) -> None:
        """Rename both files to their places; durable when this returns."""
        target, side_target = _parts(key), _side_parts(key)
        with (
            self._locked(fcntl.LOCK_EX),
            tree.directory(self._root, [_TMP]) as tmp,
            tree.directory(self._root, target[:-1], create=True) as folder,
            tree.directory(self._root, side_target[:-1], create=True) as side_folder,
        ):
            os.rename(body[-1], target[-1], src_dir_fd=tmp, dst_dir_fd=folder)
            os.rename(side[-1], side_target[-1], src_dir_fd=tmp, dst_dir_fd=side_folder)
            os.fsync(folder)
            os.fsync(side_folder)

    @contextmanager
    def _locked(self, kind: int) -> Iterator[None]:
        """The store-wide lock. It dies with its holder, so a crash can't leave it behind."""
        how = os.O_RDONLY | (os.O_CREAT if kind == fcntl.LOCK_EX else 0)
        try:
            file = os.open(self._root / _LOCK, how | os.O_NOFOLLOW, 0o666)
        except FileNotFoundError:
            if kind == fcntl.LOCK_EX:
                raise
            yield  # nothing was ever swapped in here
            return
        try:
            fcntl.flock(file, kind)
            yield
        finally:
            os.close(file)

    def _sweep_once(self) -> None:
        """Remove what a crashed process left in the folder of temporary files."""
        if self._swept:
            return
        self._swept = True
        with tree.directory(self._root, [_TMP], create=True) as folder:
            for name in os.listdir(folder):
                age = time.time() - os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime
                if age > _LEFTOVER_SECONDS:
                    tree.remove(self._root, (_TMP, name))

    def _new_tmp(self) -> tuple[str, ...]:
        return (_TMP, f"{os.getpid()}-{secrets.token_hex(8)}")

    def _signing_secret(self) -> bytes:
        if self._secret is None:
            raise ConfigurationError("DF_SIGNING_KEY: is required to sign links of the filesystem store")
        return self._secret


def _parts(key: str) -> tuple[str, ...]:
    return tuple(key.split("/"))


def _side_parts(key: str) -> tuple[str, ...]:
    return (_META, *_parts(f"{key}@.json"))


def _info(key: str, found: os.stat_result, sidecar: _Sidecar | None) -> ObjectInfo:
    return ObjectInfo(
        key=key,
        size_bytes=found.st_size,
        sha256=sidecar.sha256 if sidecar else None,
        content_type=sidecar.content_type if sidecar else None,
        modified_at=datetime.fromtimestamp(found.st_mtime, UTC),
        metadata=sidecar.metadata if sidecar else {},
    )


@contextmanager
def _translated(action: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kind = DiskFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else StorageError
        raise kind(f"{action}: {error.strerror}") from error
