"""uvicorn that ends its event streams first: otherwise a stop would wait for the last reader to leave."""

import gc
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from dreamforge_api.app import create_app
from dreamforge_api.deps import Services

_GRACE_SECONDS = 3


class Server(uvicorn.Server):
    """Serves :func:`~dreamforge_api.app.create_app` until SIGTERM or SIGINT."""

    def __init__(self, services: Services, *, host: str, port: int) -> None:
        config = uvicorn.Config(
            create_app(services, docs=services.settings.docs),
            host=host,
            port=port,
            loop="uvloop",
            http="httptools",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_GRACE_SECONDS,
            timeout_keep_alive=75,
            backlog=4096,
        )
        super().__init__(config)
        self._services = services

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Like uvicorn's, but a stop that was asked for ends with exit code 0 instead of by the signal itself."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {sig: signal.signal(sig, self.handle_exit) for sig in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # What is loaded by now stays for ever. A full collection would walk all of it while every request waits.
        gc.collect()
        gc.freeze()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._services.broadcaster.close()
        await super().shutdown(sockets)
