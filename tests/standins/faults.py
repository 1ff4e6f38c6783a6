"""What can be wrong with an answer, switchable per file and place."""

import threading
from dataclasses import dataclass, field
from enum import StrEnum


class Place(StrEnum):
    """Where it goes wrong: at the source's own address, or at the host that its signed URLs lead to."""

    FRONT = "front"
    STORE = "store"


@dataclass
class Fault:
    """How an answer is wrong; the default is not at all. ``times`` counts the answers that are (``None``: every)."""

    times: int | None = None
    #: Requests (GET) that are answered well first.
    after: int = 0
    #: Another status; ``headers`` and ``body`` go with it.
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    #: 200 with a page that asks to log in.
    login_page: bool = False
    #: A redirect to here (``{self}`` is the request's own URL).
    location: str | None = None
    #: Content-Length says this many bytes more (or fewer) than there are, or nothing (``no_length``).
    length_off_by: int = 0
    no_length: bool = False
    #: 206 with other bytes than asked for, by this many.
    range_off_by: int = 0
    #: 200 with everything, whatever range was asked.
    ignores_range: bool = False
    #: 206 whatever the condition of ``If-Range`` was.
    ignores_if_range: bool = False
    #: The file is another one from now on: new ETag, new bytes.
    replaced_by: bytes | None = None
    #: Silence, or a cut connection, after this share of the answer's bytes.
    stall_at: float | None = None
    cut_at: float | None = None
    #: One bit of the byte at this offset of the file is wrong.
    flipped_at: int | None = None
    #: The bytes are this many zeros, in gzip.
    gzip_zeros: int = 0
    #: More headers of the good answer (``Content-Disposition``, ``ETag``).
    extra: dict[str, str] = field(default_factory=dict)
    #: Bytes per second.
    speed: int | None = None


NONE = Fault()


class Faults:
    """Which fault the next answer has, by place and name."""

    def __init__(self) -> None:
        self._set: dict[tuple[Place, str], Fault] = {}
        self._lock = threading.Lock()

    def set(self, place: Place, name: str, fault: Fault) -> None:
        """From now on; it replaces the one before."""
        self._set[place, name] = fault

    def clear(self) -> None:
        """All well again."""
        self._set.clear()

    def next(self, place: Place, name: str, *, counts: bool) -> Fault:
        """The fault of this answer; only those that count use it up."""
        with self._lock:
            return self._next(self._set.get((place, name), NONE), counts)

    @staticmethod
    def _next(fault: Fault, counts: bool) -> Fault:
        if fault is NONE or not counts:
            return fault
        if fault.after > 0:
            fault.after -= 1
            return NONE
        if fault.times is None:
            return fault
        if fault.times == 0:
            return NONE
        fault.times -= 1
        return fault
