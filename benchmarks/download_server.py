"""``python -m benchmarks.download_server FILE``: serves a file with ranges out of the page cache; prints its port.

``/all`` is the file, ``/first/N`` its first N bytes as a file of their own, ``/until/N`` the file of which nothing
from byte N on can be had. The kernel does the work (``sendfile``), so that the server is not what is measured.
"""

import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    file: Path

    def do_GET(self) -> None:
        _, what, *given = self.path.split("/")
        size = int(given[0]) if what == "first" else self.file.stat().st_size
        wanted = _RANGE.fullmatch(self.headers.get("Range", ""))
        start, end = (int(wanted[1]), min(int(wanted[2]) + 1, size)) if wanted else (0, size)
        if what == "until" and end > int(given[0]):
            self.send_error(404)
            return
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.send_header("ETag", '"one"')
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        with self.file.open("rb") as served:
            self.connection.sendfile(served, start, end - start)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that was refused on one connection hangs up on the others."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            raise


def main() -> None:
    _Handler.file = Path(sys.argv[1])
    with _Server(("127.0.0.1", 0), _Handler) as server:
        print(server.server_port, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
