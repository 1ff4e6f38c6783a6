"""Requests at given times, whether earlier ones have been answered or not: latency as users meet it.

A request's latency counts from when it was due, so a server that stalls pays for everyone who came meanwhile
(coordinated omission). ``select`` wakes to the microsecond; the usual event loops round a wait to milliseconds.
"""

import random
import select
import socket
import time
from collections import deque
from dataclasses import dataclass, field

from benchmarks.plain_client import incomplete

_CONNECTIONS = 64
_TAKE = 1 << 16
_PATIENCE_SECONDS = 30.0


@dataclass
class _State:
    request: bytes
    status: bytes
    idle: list[socket.socket]
    busy: dict[socket.socket, float] = field(default_factory=dict)
    waiting: deque[float] = field(default_factory=deque)
    parts: dict[socket.socket, bytes] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)

    def send(self, due: float) -> None:
        if not self.idle:
            self.waiting.append(due)
            return
        connection = self.idle.pop()
        connection.sendall(self.request)
        self.busy[connection] = due

    def receive(self, connection: socket.socket) -> None:
        answer = self.parts.pop(connection, b"") + connection.recv(_TAKE)
        if incomplete(answer):
            self.parts[connection] = answer
            return
        if answer[9:12] != self.status:
            raise RuntimeError(f"an unexpected answer: {answer[:500].decode(errors='replace')}")
        self.latencies.append((time.perf_counter() - self.busy.pop(connection)) * 1000)
        self.idle.append(connection)
        if self.waiting:
            self.send(self.waiting.popleft())


def latencies(port: int, request: bytes, rate: float, seconds: float, seed: int, status: int = 202) -> list[float]:
    """Milliseconds of each request of a Poisson stream of ``rate`` a second; the same ``seed``, the same times."""
    idle = [socket.create_connection(("127.0.0.1", port), _PATIENCE_SECONDS) for _ in range(_CONNECTIONS)]
    state = _State(request, str(status).encode(), idle)
    draw = random.Random(seed)
    try:
        begin = due = time.perf_counter()
        while due < begin + seconds or state.busy:
            now = time.perf_counter()
            if due < begin + seconds and now >= due:
                state.send(due)
                due += draw.expovariate(rate)
                continue
            wait = due - now if due < begin + seconds else _PATIENCE_SECONDS
            ready, _, _ = select.select(list(state.busy), [], [], wait)
            for connection in ready:
                state.receive(connection)
            if not ready and wait == _PATIENCE_SECONDS:
                raise RuntimeError("no answer")
    finally:
        for connection in [*state.idle, *state.busy]:
            connection.close()
    return state.latencies
