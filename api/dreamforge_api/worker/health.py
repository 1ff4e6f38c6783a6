"""The worker's own ``/healthz`` and ``/metrics``, for where each process is scraped by itself."""

import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from dreamforge_api import metrics

#: The loop sweeps every second; a minute without one means it hangs.
STALE_SECONDS = 60.0


def serve(host: str, port: int, last_sweep: Callable[[], float]) -> ThreadingHTTPServer:
    """Answer on ``host:port`` from a background thread; ``last_sweep`` gives a monotonic time."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._answer(HTTPStatus.OK, metrics.CONTENT_TYPE, metrics.render(None))
            elif self.path == "/healthz":
                fresh = time.monotonic() - last_sweep() < STALE_SECONDS
                status = HTTPStatus.OK if fresh else HTTPStatus.SERVICE_UNAVAILABLE
                self._answer(status, "application/json", b'{"status":"ok"}' if fresh else b'{"status":"stale"}')
            else:
                self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"not found\n")

        def _answer(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
            return

    server = ThreadingHTTPServer((host, port), Handler)
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server
