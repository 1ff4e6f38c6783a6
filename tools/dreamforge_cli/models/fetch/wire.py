"""Asking for a part of a file: the way from the lasting URL to the bytes, and what an answer means."""

import json
import socket
import threading
from dataclasses import dataclass

import httpx

from dreamforge_cli.models.errors import NetworkError
from dreamforge_cli.models.fetch import answers, redirects
from dreamforge_cli.models.fetch.answers import Body, Expired, Known, TryAgain
from dreamforge_cli.models.fetch.guard import CONNECT_SECONDS
from dreamforge_cli.models.fetch.ranges import Stretch
from dreamforge_cli.models.sources.base import ResolvedFile

_SAID_BYTES = 4096


@dataclass(frozen=True)
class Opened:
    """An answer whose body is still to be read."""

    response: httpx.Response
    body: Body


class Route:
    """The way to one file, shared by its workers: the signed URL is kept until it expires."""

    def __init__(self, file: ResolvedFile, client: httpx.Client, stall_seconds: float) -> None:
        self._client = client
        self._timeout = httpx.Timeout(stall_seconds, connect=CONNECT_SECONDS, pool=None)
        self._start = redirects.first_hop(file.url, file.credential)
        self._signed: redirects.Hop | None = None
        self._open: set[httpx.Response] = set()
        self._lock = threading.Lock()
        self._closed = False

    def open(self, stretch: Stretch, known: Known) -> Opened:
        """Ask for a stretch. Raises our errors, :class:`TryAgain` or :class:`answers.Changed`."""
        signed = self._signed
        hop = signed or self._start
        headers = {"Range": f"bytes={stretch[0]}-{stretch[1] - 1}"}
        if known.etag is not None:
            headers["If-Range"] = known.etag
        try:
            while True:
                response = self._send(hop, headers)
                if response.status_code not in redirects.REDIRECTS:
                    break
                self.close(response)
                hop = redirects.next_hop(hop, response.headers.get("location"))
            opened = self._judged(response, hop, stretch, known, signed=hop is signed)
        except Expired:
            self._signed = None
            raise
        self._signed = hop if hop.count else None
        return opened

    def close(self, response: httpx.Response) -> None:
        with self._lock:
            self._open.discard(response)
        response.close()

    def hang_up(self) -> None:
        """Wake every thread that waits for bytes; each sees its connection end."""
        with self._lock:
            self._closed = True
            waiting = list(self._open)
        for response in waiting:
            _shut(response)

    def _send(self, hop: redirects.Hop, headers: dict[str, str]) -> httpx.Response:
        headers = {**headers, **hop.headers}
        request = self._client.build_request("GET", hop.url, headers=headers, timeout=self._timeout)
        try:
            response = self._client.send(request, stream=True)
        except httpx.TransportError as error:
            if "location header" in str(error):  # httpx reads it even when it is not to follow.
                raise NetworkError(f"{redirects.shown(hop.url)} redirects to something that is no URL") from None
            raise TryAgain(f"{redirects.shown(hop.url)}: {in_words(error)}") from None
        with self._lock:
            self._open.add(response)
            if self._closed:
                _shut(response)
        return response

    def _judged(
        self, response: httpx.Response, hop: redirects.Hop, stretch: Stretch, known: Known, *, signed: bool
    ) -> Opened:
        try:
            status = response.status_code
            if status in (200, 206):
                return Opened(response, answers.judge(status, response.headers, stretch, known))
            said = answers.plain(_said(response), hop.secrets)
            raise answers.refusal(status, response.headers, said, redirects.shown(hop.url), signed=signed)
        except BaseException:
            self.close(response)
            raise


def in_words(error: httpx.TransportError) -> str:
    """What happened to a connection, for people."""
    if isinstance(error, httpx.ConnectTimeout | httpx.ReadTimeout | httpx.WriteTimeout):
        return "no byte came for too long"
    return answers.plain(str(error) or type(error).__name__, frozenset())


def _said(response: httpx.Response) -> str:
    """What the source says about a refusal: both sources put it into a header or a small JSON body."""
    if told := response.headers.get("x-error-message"):
        return str(told)
    if "json" not in response.headers.get("content-type", ""):
        return ""
    body = b""
    try:
        for chunk in response.iter_raw():
            body += chunk
            if len(body) > _SAID_BYTES:
                return ""
        found = json.loads(body)
    except (httpx.TransportError, ValueError, RecursionError):
        return ""
    told = found.get("message") or found.get("error") if isinstance(found, dict) else None
    return told if isinstance(told, str) else ""


def _shut(response: httpx.Response) -> None:
    stream = response.extensions.get("network_stream")
    connection = stream.get_extra_info("socket") if stream is not None else None
    if isinstance(connection, socket.socket):
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # It has ended by itself.
