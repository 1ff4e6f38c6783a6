"""An HTTP proxy that makes tunnels, on a loopback address: it knows names that nobody else does."""

import contextlib
import socket
import threading
from collections.abc import Mapping

from tests.standins.web import Exchange, Site

Address = tuple[str, int]


class Proxy(Site):
    """``ways``: where ``host:port`` leads; everything else gets ``refusal``."""

    def __init__(self, ways: Mapping[str, Address]) -> None:
        self._ways = ways
        self.refusal = 403
        super().__init__(self._connect)

    @property
    def targets(self) -> list[str]:
        """What tunnels were asked for, in order."""
        return [asked.target for asked in self.requests("CONNECT")]

    def _connect(self, ask: Exchange) -> None:
        address = self._ways.get(ask.path) if ask.command == "CONNECT" else None
        if address is None:
            ask.reply(self.refusal, b"", {})
            return
        with socket.create_connection(address) as far:
            ask.send_response(200)
            ask.end_headers()
            back = threading.Thread(target=_pass_on, args=(far, ask.connection))
            back.start()
            _pass_on(ask.connection, far)
            back.join()
        ask.close_connection = True


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)
