"""One origin on a loopback address: a threaded HTTP/1.1 server that remembers what it was asked."""

import json
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass(frozen=True)
class Asked:
    """A request as it arrived; header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]

    def holds(self, text: str) -> bool:
        """Whether the text stands anywhere in it: what a credential must not do at a foreign host."""
        seen = [self.target, unquote(self.target), *self.headers, *self.headers.values()]
        return any(text in part for part in seen)


class Exchange(BaseHTTPRequestHandler):
    """One request, with the answers that the imitations need."""

    protocol_version = "HTTP/1.1"
    server_version = "standin"
    sys_version = ""
    timeout = 30
    site: "Site"

    def setup(self) -> None:
        super().setup()
        assert isinstance(self.server, _Server)
        self.site = self.server.site

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def _answer(self) -> None:
        asked = Asked(self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
        with self.site.lock:
            self.site.asked.append(asked)
        self.site.answer(self)

    do_GET = do_HEAD = do_POST = do_CONNECT = _answer  # noqa: N815 - the standard library's names

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the standard library's name
        """Quiet: tests look at ``asked``."""

    @property
    def parts(self) -> list[str]:
        """The path's segments, unquoted each by itself: a quoted slash stays in its segment."""
        return [unquote(part) for part in urlsplit(self.path).path.split("/") if part]

    @property
    def query(self) -> dict[str, str]:
        """The query; of a repeated name the last."""
        return {name: values[-1] for name, values in parse_qs(urlsplit(self.path).query).items()}

    @property
    def bearer(self) -> str | None:
        """The token of the Authorization header."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token if scheme.lower() == "bearer" else None

    def reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        """A whole answer; a HEAD gets its headers only."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def json(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        """An answer of an API."""
        body = json.dumps(value).encode()
        self.reply(status, body, {"Content-Type": "application/json; charset=utf-8", **(headers or {})})

    def html(self, status: int, title: str) -> None:
        """A page for people."""
        page = f"<!DOCTYPE html><html><head><title>{title}</title></head><body>{title}</body></html>"
        self.reply(status, page.encode(), {"Content-Type": "text/html; charset=utf-8"})

    def redirect(self, status: int, location: str, headers: dict[str, str] | None = None) -> None:
        """Go elsewhere."""
        self.reply(status, b"", {"Location": location, **(headers or {})})


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    site: "Site"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Kept until :meth:`Site.close`, so that a mistake of the imitation fails a test, not a thread."""
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError | TimeoutError):
            self.site.mistakes.append(error)


class Site:
    """An origin. ``answer`` is called in the request's own thread."""

    def __init__(self, answer: Callable[[Exchange], None], host: str = "127.0.0.1") -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        self.mistakes: list[BaseException | None] = []
        self.sent_bytes = 0
        self.lock = threading.Lock()
        self.ending = threading.Event()
        self._server = _Server((host, 0), Exchange)
        self._server.site = self
        self.host, self.port = host, self._server.server_address[1]
        self.url = f"http://{host}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), name=f"site-{self.port}")
        self._thread.start()

    @property
    def authority(self) -> str:
        """``host:port``, as a list of allowed hosts has it."""
        return f"{self.host}:{self.port}"

    def requests(self, method: str | None = None, containing: str = "") -> list[Asked]:
        """What it was asked so far, in order."""
        with self.lock:
            return [a for a in self.asked if method in (None, a.method) and containing in a.target]

    def saw(self, text: str) -> bool:
        """Whether the text arrived in any request."""
        return any(asked.holds(text) for asked in self.requests())

    def count(self, sent: int) -> None:
        """Bytes of files that went out."""
        with self.lock:
            self.sent_bytes += sent

    def close(self) -> None:
        """Stop; stalled answers end at once. Raises what went wrong in here."""
        self.ending.set()
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()
        if self.mistakes:
            raise AssertionError(f"the imitation at {self.url} failed") from self.mistakes[0]
