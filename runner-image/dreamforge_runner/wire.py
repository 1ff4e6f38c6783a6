"""What supervisor and render child say to each other: small frozen messages in length-prefixed frames.

A frame is two big-endian 32-bit lengths, a JSON header of the first length, and raw bytes of the second (pixels).
Nothing is pickled: what a child sends is data to the supervisor, whatever happened to the child.
"""

import contextlib
import json
import socket
import struct
import threading
from dataclasses import dataclass, fields
from typing import Any

_LENGTHS = struct.Struct(">II")
_MAX_HEADER = 1 << 20
_MAX_PAYLOAD = 64 << 20


class ChannelClosed(Exception):
    """The other side is gone."""


@dataclass(frozen=True, slots=True)
class Message:
    """Base of all messages; a field named ``rgb`` travels as the frame's raw bytes."""


# Supervisor to child.


@dataclass(frozen=True, slots=True)
class Prepare(Message):
    """Import the backend now, so that the first job need not wait for it; with a model, load it and warm up too.

    Answered by ``Prepared``, and with a model by ``Noticed``... and ``Warmed``, or by ``Failed``.
    """

    target: str
    model: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class StartJob(Message):
    """Make a model ready and prepare what all items share; answered by ``JobReady`` or ``Failed``."""

    target: str
    model: dict[str, Any]
    params: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RenderItems(Message):
    """Render items, together if there are several; each is answered by ``StepDone``..., ``Denoised``,
    ``ItemRendered``; or all by one ``Failed``."""

    indexes: list[int]
    seeds: list[int]


@dataclass(frozen=True, slots=True)
class EndJob(Message):
    """No more items; answered by ``JobDone``."""


@dataclass(frozen=True, slots=True)
class Cancel(Message):
    """Stop between two denoise steps; answered by ``JobDone``."""


@dataclass(frozen=True, slots=True)
class Shutdown(Message):
    """Leave."""


# Child to supervisor.


@dataclass(frozen=True, slots=True)
class Prepared(Message):
    """A backend is imported."""

    target: str
    backend: str
    digital_source_type: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Warmed(Message):
    """A model is loaded and has been tried out."""

    seconds: float


@dataclass(frozen=True, slots=True)
class JobReady(Message):
    """The model is ready; ``reused`` when it was already. ``micro_batch`` items may come at once."""

    backend: str
    digital_source_type: str
    seconds: float
    reused: bool
    checkpoint_hash: str | None = None
    micro_batch: int = 1


@dataclass(frozen=True, slots=True)
class Noticed(Message):
    """Something a person should read in the job's log."""

    code: str
    message: str
    level: str = "info"


@dataclass(frozen=True, slots=True)
class StepDone(Message):
    """One more denoise step is done."""

    item_index: int
    step: int


@dataclass(frozen=True, slots=True)
class Denoised(Message):
    """The item left the denoiser: the next one may begin."""

    item_index: int


@dataclass(frozen=True, slots=True)
class ItemRendered(Message):
    """The item's pixels, as in :class:`~dreamforge_runner.backends.base.Pixels`."""

    item_index: int
    width: int
    height: int
    rgb: bytes
    plan: str | None = None


@dataclass(frozen=True, slots=True)
class JobDone(Message):
    """The child freed what the job used; ``memory`` as in :class:`~dreamforge.events.AllocatorMemory`."""

    memory: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Failed(Message):
    """The job ended badly; the child freed what it could and waits for the next."""

    code: str
    message: str
    item_index: int | None
    memory: dict[str, Any] | None = None


_TO_CHILD: tuple[type[Message], ...] = (Prepare, StartJob, RenderItems, EndJob, Cancel, Shutdown)
_TO_SUPERVISOR: tuple[type[Message], ...] = (
    Prepared,
    Warmed,
    JobReady,
    Noticed,
    StepDone,
    Denoised,
    ItemRendered,
    JobDone,
    Failed,
)
_BY_NAME = {kind.__name__: kind for kind in (*_TO_CHILD, *_TO_SUPERVISOR)}
_FIELDS = {kind: tuple(f.name for f in fields(kind)) for kind in _BY_NAME.values()}


def _encode(message: Message) -> tuple[bytes, bytes]:
    """Header and raw bytes of a frame."""
    if isinstance(message, StepDone):
        # Sent between denoise steps by the thread that renders: half the cost of the way below (benchmark R1).
        return b'{"is":"StepDone","item_index":%d,"step":%d}' % (message.item_index, message.step), b""
    kind = type(message)
    body = {name: getattr(message, name) for name in _FIELDS[kind]}
    payload = body.pop("rgb", b"")
    return json.dumps({"is": kind.__name__, **body}).encode(), payload


class Channel:
    """One end of the socket pair. Any thread may send; one thread receives."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._sending = threading.Lock()

    def send(self, message: Message) -> None:
        """Hand over one message; raises ``ChannelClosed``."""
        header, payload = _encode(message)
        try:
            with self._sending:
                self._socket.sendall(_LENGTHS.pack(len(header), len(payload)) + header)
                if payload:
                    self._socket.sendall(payload)
        except OSError as error:
            raise ChannelClosed(str(error)) from error

    def receive(self) -> Message:
        """Wait for the next message; raises ``ChannelClosed`` at the end or when the frame makes no sense."""
        try:
            header_length, payload_length = _LENGTHS.unpack(self._exactly(_LENGTHS.size))
            if header_length > _MAX_HEADER or payload_length > _MAX_PAYLOAD:
                raise ChannelClosed("a frame is too large")
            body = json.loads(self._exactly(header_length))
            kind = _BY_NAME[body.pop("is")]
            if payload_length:
                body["rgb"] = bytes(self._exactly(payload_length))
            return kind(**body)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ChannelClosed(f"no message could be read ({type(error).__name__})") from error

    def close(self) -> None:
        """Close both directions; a blocked ``receive`` on either end raises ``ChannelClosed``."""
        with contextlib.suppress(OSError):  # the other side may have been first
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _exactly(self, size: int) -> bytearray:
        buffer = bytearray(size)
        view, got = memoryview(buffer), 0
        while got < size:
            count = self._socket.recv_into(view[got:])
            if count == 0:
                raise ChannelClosed("closed")
            got += count
        return buffer
