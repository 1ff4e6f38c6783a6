"""A TCP relay that cuts connections: what a bad network does to a client of the real API."""

import contextlib
import socket
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def cutting_relay(host: str, port: int, cut_after: int, cuts: int) -> Iterator[tuple[str, list[int]]]:
    """``(base URL, bytes relayed per connection)``: the first ``cuts`` streams end after ``cut_after`` answer bytes.

    Only answers that are event streams are cut, so that the plain calls around them stay plain.
    """
    relayed: list[int] = []
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.1)
    closing = threading.Event()
    threads: list[threading.Thread] = []
    sockets: list[socket.socket] = []

    def up(client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                server.sendall(data)

    def serve(client: socket.socket) -> None:
        with client, socket.create_connection((host, port)) as server, contextlib.suppress(OSError):
            sockets.extend((client, server))
            threading.Thread(target=up, args=(client, server), daemon=True).start()
            seen, stream = 0, False
            while data := server.recv(512):
                stream = stream or b"text/event-stream" in data
                seen += len(data)
                if stream and len(relayed) < cuts and seen >= cut_after:
                    relayed.append(seen)
                    client.shutdown(socket.SHUT_RDWR)
                    return
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        while not closing.is_set():
            with contextlib.suppress(TimeoutError):
                client, _ = listener.accept()
                thread = threading.Thread(target=serve, args=(client,), daemon=True)
                thread.start()
                threads.append(thread)

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", relayed
    finally:
        closing.set()
        acceptor.join()
        listener.close()
        for open_socket in sockets:
            with contextlib.suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(5)


class SilentRelay:
    """A TCP relay that can fall silent, as a network does: what was sent is taken, and nothing comes back.

    ``silence`` and ``speak`` are for all connections; :meth:`move` leaves the ones there are silent for good, and new
    ones work: as when the server has moved.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._all_speaking: list[threading.Event] = []
        self.move()
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def silence(self) -> None:
        self._speaking.clear()

    def speak(self) -> None:
        self._speaking.set()

    def move(self) -> None:
        self._speaking = threading.Event()
        self._speaking.set()
        self._all_speaking.append(self._speaking)

    def close(self) -> None:
        """End every connection there is and take no new one; once is enough."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for speaking in self._all_speaking:
            speaking.set()
        for thread in self._threads:
            thread.join(5)
        for each in self._sockets:
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._sockets += (client, server)
                for source, sink in ((client, server), (server, client)):
                    thread = threading.Thread(target=_pass_on, args=(source, sink, self._speaking), daemon=True)
                    thread.start()
                    self._threads.append(thread)


def _pass_on(source: socket.socket, sink: socket.socket, speaking: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            speaking.wait()
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
