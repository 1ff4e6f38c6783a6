"""The one HTTP client that talks to sources of models: to public hosts, over https, nobody unasked in between.

A host name is resolved once and the connection goes to the address that was checked, so a name that resolves to
something else a moment later gains nothing. The name still goes into SNI and ``Host``. The client follows no
redirect, keeps no cookie, and reads no proxy and no ``.netrc`` from the environment: each of them would send
something somewhere by itself.

A proxy is used only when it was named (``DF_MODEL_PROXY_URL``). It looks names up and connects, so what a name leads
to is then its business: here a host is refused when this machine itself knows it at an address that is not public,
and a name that only the proxy knows passes. Everything goes through a tunnel: the proxy sees host names, no URL and
no token. Allowed hosts are reached without it.
"""

import logging
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.cookiejar import CookieJar, DefaultCookiePolicy
from itertools import zip_longest
from typing import Any, Final

import httpcore
import httpx

from dreamforge_cli.models.errors import NotAllowed
from dreamforge_cli.models.fetch.addresses import is_public
from dreamforge_cli.models.fetch.answers import plain

#: Names the program: pages for browsers are of no use to it.
USER_AGENT: Final = "dreamforge-models/1 (+https://dreamforge.dev)"
CONNECT_SECONDS: Final = 15.0
_ANSWER_SECONDS = 30.0
_CONNECTIONS_PER_HOST = 8
_LAST_PORT = 65535
_ADDRESSES_TRIED = 4

_HTTPCORE_ERRORS = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.UnsupportedProtocol,
)

HostPort = tuple[str, int]
#: From host and port to literal addresses, best first.
Resolve = Callable[[str, int], Sequence[str]]


def open_client(
    allowed_hosts: Iterable[str] = (),
    *,
    connections_per_host: int = _CONNECTIONS_PER_HOST,
    resolve: Resolve | None = None,
    proxy_url: str | None = None,
) -> httpx.Client:
    """A client for sources and the fetcher; close it when done.

    ``allowed_hosts`` (``host:port``) may be reached over plain http and at any address. Raises the errors of
    ``dreamforge_cli.models.errors`` for what it refuses, and httpx's own for what fails on the way.
    """
    for library in ("httpx", "httpcore"):  # They log whole URLs and headers, signatures included.
        logging.getLogger(library).setLevel(logging.WARNING)
    guard = Guard(allowed_hosts, resolve or resolved)
    return httpx.Client(
        transport=GuardedTransport(guard, connections_per_host, proxy_url),
        timeout=httpx.Timeout(_ANSWER_SECONDS, connect=CONNECT_SECONDS, pool=None),
        headers={"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"},
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        follow_redirects=False,
        trust_env=False,
    )


def resolved(host: str, port: int) -> list[str]:
    """What the system's resolver says."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Guard:
    """Decides which URLs and which addresses may be reached."""

    def __init__(self, allowed_hosts: Iterable[str], resolve: Resolve) -> None:
        self._allowed = frozenset(_host_port(text) for text in allowed_hosts)
        self._resolve = resolve
        self._left_to_proxy: set[HostPort] = set()

    def allows(self, host: str, port: int) -> bool:
        """Whether it may be reached over plain http, at any address, and without a proxy."""
        return (host.lower(), port) in self._allowed

    def check(self, url: httpx.URL) -> None:
        """Refuse what is not https to a host, before anything is resolved."""
        if (url.port or 0) > _LAST_PORT:
            raise NotAllowed(f"{url.host} has no port {url.port}")
        if url.scheme == "https" and url.host:
            return
        if url.scheme == "http" and self.allows(url.host, url.port or 80):
            return
        raise NotAllowed(
            f"{url.scheme}://{url.host} is refused: models come over https only "
            "(DF_MODEL_ALLOWED_HOSTS lists the mirrors that may do otherwise)"
        )

    def addresses(self, host: str, port: int) -> Sequence[str]:
        """The addresses of ``host`` to connect to, all of them checked; one bad address refuses the host."""
        try:
            found = self._resolve(host, port)
        except (OSError, UnicodeError):
            found = ()
        if not found:
            raise httpcore.ConnectError(f"{host} is not known to this machine's resolver: is the network up?")
        if not self.allows(host, port):
            _require_public(host, found)
        return found

    def leave_to_proxy(self, host: str, port: int) -> None:
        """Refuse a host that is known here, and is not public; looked up once."""
        if (host, port) not in self._left_to_proxy:
            with suppress(OSError, UnicodeError):
                _require_public(host, self._resolve(host, port))
            self._left_to_proxy.add((host, port))


def _require_public(host: str, addresses: Sequence[str]) -> None:
    for address in addresses:
        if not is_public(address):
            raise NotAllowed(
                f"{host} is at {address}, which is no public address: refused "
                "(DF_MODEL_ALLOWED_HOSTS lists the mirrors that may be)"
            )


class GuardedTransport(httpx.BaseTransport):
    """httpcore's connection pool behind the guard, with at most so many answers open per host."""

    def __init__(self, guard: Guard, connections_per_host: int, proxy_url: str | None) -> None:
        self._guard = guard
        self._per_host = connections_per_host
        self._slots: dict[str, threading.BoundedSemaphore] = {}
        self._lock = threading.Lock()
        bounds: dict[str, Any] = {
            "ssl_context": httpx.create_ssl_context(),
            "max_connections": None,
            "max_keepalive_connections": 2 * connections_per_host,
            "keepalive_expiry": 20,
        }
        self._pool = httpcore.ConnectionPool(**bounds, network_backend=_GuardedNetwork(guard))
        self._proxied: httpcore.ConnectionPool | None = None
        if proxy_url is not None:
            proxy = httpx.Proxy(proxy_url)
            self._proxied = httpcore.HTTPProxy(str(proxy.url), proxy_auth=proxy.raw_auth, **bounds)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request; the answer's body keeps its slot until it is closed."""
        url = request.url
        self._guard.check(url)
        slot = self._slot(f"{url.scheme}://{url.netloc!r}")
        slot.acquire()
        try:
            with _httpx_errors():
                answer = self._way_to(url).handle_request(_as_httpcore(request))
        except httpx.ProxyError as error:
            slot.release()
            if not str(error).startswith(("401", "403", "407")):
                raise
            raise NotAllowed(
                f"the proxy of DF_MODEL_PROXY_URL refuses {url.host}: {plain(str(error), frozenset())}"
            ) from None
        except BaseException:
            slot.release()
            raise
        return httpx.Response(
            status_code=answer.status,
            headers=answer.headers,
            stream=_Body(answer, slot),
            extensions=answer.extensions,
        )

    def close(self) -> None:
        self._pool.close()
        if self._proxied is not None:
            self._proxied.close()

    def _way_to(self, url: httpx.URL) -> httpcore.ConnectionPool:
        port = url.port or (443 if url.scheme == "https" else 80)
        if self._proxied is None or self._guard.allows(url.host, port):
            return self._pool
        self._guard.leave_to_proxy(url.host, port)
        return self._proxied

    def _slot(self, origin: str) -> threading.BoundedSemaphore:
        with self._lock:
            return self._slots.setdefault(origin, threading.BoundedSemaphore(self._per_host))


class _GuardedNetwork(httpcore.NetworkBackend):
    """Connects to addresses the guard has checked, never to a name."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Try a few addresses in turn, within the timeout together: one family may lead nowhere."""
        failure: Exception | None = None
        chosen = in_turns(self._guard.addresses(host, port))[:_ADDRESSES_TRIED]
        each = None if timeout is None else timeout / len(chosen)
        for address in chosen:
            try:
                return self._sockets.connect_tcp(address, port, each, local_address, socket_options or ())
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore.ConnectError(f"{host} has no address")


class _Body(httpx.SyncByteStream):
    """An answer's bytes; closing it gives the host's slot back."""

    def __init__(self, answer: httpcore.Response, slot: threading.BoundedSemaphore) -> None:
        self._answer = answer
        self._slot: threading.BoundedSemaphore | None = slot

    def __iter__(self) -> Iterator[bytes]:
        with _httpx_errors():
            yield from self._answer.iter_stream()

    def close(self) -> None:
        slot, self._slot = self._slot, None
        if slot is not None:
            try:
                self._answer.close()  # before the slot is another's, who would find the connection in use
            finally:
                slot.release()


def _as_httpcore(request: httpx.Request) -> httpcore.Request:
    url = request.url
    return httpcore.Request(
        method=request.method,
        url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
        headers=request.headers.raw,
        content=request.stream,
        extensions=request.extensions,
    )


@contextmanager
def _httpx_errors() -> Iterator[None]:
    """httpcore's errors under httpx's names for them, which are the same words."""
    try:
        yield
    except _HTTPCORE_ERRORS as error:
        kind: type[httpx.TransportError] = getattr(httpx, type(error).__name__, httpx.TransportError)
        raise kind(str(error)) from error


def in_turns(addresses: Sequence[str]) -> list[str]:
    """IPv6 and IPv4 one after the other, each in its order, beginning with the family that is first."""
    first_is_v6 = bool(addresses) and ":" in addresses[0]
    first = [address for address in addresses if (":" in address) is first_is_v6]
    second = [address for address in addresses if (":" in address) is not first_is_v6]
    pairs = zip_longest(first, second)
    return [address for pair in pairs for address in pair if address is not None]


def _host_port(text: str) -> HostPort:
    host, _, port = text.rpartition(":")
    return host.strip("[]").lower(), int(port)
