"""One client on a plain, blocking socket: one request at a time, one stream at a time."""

import re
import socket
import time
from uuid import UUID

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
_END = b"event: end\n"
_TAKE = 1 << 18
_PATIENCE_SECONDS = 30


class Line:
    """A keep-alive connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), _PATIENCE_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes, status: int) -> float:
        """Milliseconds from sending ``request`` to the whole answer, which must have ``status``."""
        began = time.perf_counter()
        self._socket.sendall(request)
        text = self._socket.recv(_TAKE)
        while (missing := incomplete(text)) and (part := self._socket.recv(_TAKE)):
            text += part
        took = (time.perf_counter() - began) * 1000
        if missing or text[9:12] != str(status).encode():
            raise RuntimeError(f"an unexpected answer: {text[:1000].decode(errors='replace')}")
        return took

    def close(self) -> None:
        self._socket.close()


def incomplete(text: bytes) -> bool:
    """Whether something of the answer is still to come."""
    head = text.find(b"\r\n\r\n")
    length = _LENGTH.search(text, 0, head + 2) if head >= 0 else None
    return length is None or len(text) < head + 4 + int(length[1])


def first_event_ms(port: int, job_id: UUID) -> float:
    """Milliseconds from the request to the first event."""
    with socket.create_connection(("127.0.0.1", port), _PATIENCE_SECONDS) as connection:
        began = time.perf_counter()
        connection.sendall(_request(job_id))
        _read_until(connection, b"\nid: ")
        return (time.perf_counter() - began) * 1000


def replay(port: int, job_id: UUID) -> tuple[int, float]:
    """``(events, seconds)`` from the request to the last event of a job that has ended."""
    with socket.create_connection(("127.0.0.1", port), _PATIENCE_SECONDS) as connection:
        began = time.perf_counter()
        connection.sendall(_request(job_id))
        text = _read_until(connection, _END)
        return text.count(b"\nid: "), time.perf_counter() - began


def _request(job_id: UUID) -> bytes:
    head = "Host: bench\r\nAccept: text/event-stream\r\nLast-Event-ID: 0"
    return f"GET /v1/jobs/{job_id}/progress/stream HTTP/1.1\r\n{head}\r\n\r\n".encode()


def _read_until(connection: socket.socket, mark: bytes) -> bytes:
    parts: list[bytes] = []
    tail = b""
    while mark not in tail:
        part = connection.recv(_TAKE)
        if not part:
            raise RuntimeError(f"the stream ended early: {b''.join(parts)[-500:].decode(errors='replace')}")
        parts.append(part)
        tail = tail[-len(mark) :] + part
    text = b"".join(parts)
    if not text.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(text[:500].decode(errors="replace"))
    return text
