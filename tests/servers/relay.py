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
