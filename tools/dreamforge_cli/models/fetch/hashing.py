"""SHA-256 whose state can be saved, so that a resumed download does not read again what it hashed before.

``hashlib`` can't export its state. libcrypto can: its ``SHA256_CTX`` is a plain struct, the same since 1998 and in
every fork. It is used when the loaded library passes a known-answer test of exactly what we need (save in the middle
of a block, restore elsewhere, go on). Where it doesn't, ``hashlib`` hashes and a resumed download reads its prefix.
"""

import ctypes
import ctypes.util
import functools
import hashlib
import sys
import threading
from typing import Any, Final, Protocol

#: h[8], Nl, Nh, data[16], num, md_len; each 32 bits.
_STATE_BYTES: Final = 112
_FORMAT: Final = f"sha256-ctx-{sys.byteorder}"


class Sha256(Protocol):
    """What a download needs of a hash."""

    def update(self, data: bytes) -> None: ...
    def hexdigest(self) -> str: ...
    def state(self) -> str | None:
        """To go on from later, on this machine; ``None`` when this hash can't."""
        ...


class PlainSha256:
    """hashlib's, which can't be saved."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def update(self, data: bytes) -> None:
        self._hash.update(data)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()

    def state(self) -> str | None:
        return None


class CryptoSha256:
    """libcrypto's; the GIL is free while it runs."""

    def __init__(self, library: Any, state: bytes | None = None) -> None:
        self._library = library
        self._context = ctypes.create_string_buffer(2 * _STATE_BYTES)
        library.SHA256_Init(self._context)
        if state is not None:
            ctypes.memmove(self._context, state, _STATE_BYTES)

    def update(self, data: bytes) -> None:
        self._library.SHA256_Update(self._context, data, len(data))

    def hexdigest(self) -> str:
        """Of what came so far; more may come."""
        copy = ctypes.create_string_buffer(self._context.raw, 2 * _STATE_BYTES)
        digest = ctypes.create_string_buffer(32)
        self._library.SHA256_Final(digest, copy)
        return digest.raw.hex()

    def state(self) -> str | None:
        return f"{_FORMAT}:{self._context.raw[:_STATE_BYTES].hex()}"


def new_sha256() -> Sha256:
    """The best this machine has."""
    library = _library()
    return PlainSha256() if library is None else CryptoSha256(library)


def restored(state: str) -> Sha256 | None:
    """A hash that goes on where ``state`` was taken; ``None`` when this machine can't."""
    form, _, text = state.partition(":")
    library = _library()
    if library is None or form != _FORMAT or len(text) != 2 * _STATE_BYTES:
        return None
    try:
        return CryptoSha256(library, bytes.fromhex(text))
    except ValueError:
        return None


@functools.cache
def _library() -> Any:
    """The libcrypto that hashlib itself uses, else the system's, if it does what we need; else ``None``."""
    own = getattr(sys.modules.get("_hashlib"), "__file__", None)
    for name in (own, ctypes.util.find_library("crypto")):
        try:
            library = ctypes.CDLL(name) if name else None
            if library is not None and _works(_declared(library)):
                return library
        except (OSError, AttributeError):
            continue
    return None


def _declared(library: Any) -> Any:
    library.SHA256_Init.argtypes = [ctypes.c_void_p]
    library.SHA256_Update.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
    library.SHA256_Final.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    return library


def _works(library: Any) -> bool:
    data = bytes(range(251)) * 9
    first = CryptoSha256(library)
    first.update(data[:1000])
    saved = first.state() or ""
    first.update(b"what comes after a save must not matter to it")
    second = CryptoSha256(library, bytes.fromhex(saved.partition(":")[2]))
    second.update(data[1000:])
    return second.hexdigest() == hashlib.sha256(data).hexdigest() == second.hexdigest()


class InOrder:
    """The digests of one file, fed from its start; one thread feeds, another may ask how far it is."""

    def __init__(self, size: int | None, *, git: bool, at: int = 0, state: str | None = None) -> None:
        """``git`` also computes git's blob hash, which needs the size first and can't go on from a saved state."""
        going_on = restored(state) if state is not None and not git else None
        self._lock = threading.Lock()
        self._sha256 = going_on or new_sha256()
        self._blob = hashlib.sha1(b"blob %d\0" % (size or 0), usedforsecurity=False) if git else None
        self.at = at if going_on is not None else 0

    def update(self, data: bytes) -> None:
        with self._lock:
            self._sha256.update(data)
            if self._blob is not None:
                self._blob.update(data)
            self.at += len(data)

    def mark(self) -> tuple[int, str | None]:
        """Position and state to go on from; (0, ``None``) when that can't be."""
        with self._lock:
            state = self._sha256.state() if self._blob is None else None
            return (self.at, state) if state is not None else (0, None)

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    @property
    def git_blob(self) -> str | None:
        return None if self._blob is None else self._blob.hexdigest()
