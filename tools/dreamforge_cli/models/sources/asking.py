"""Asking a source's API: small answers of one origin, with patience for a bad network and none for the rest.

The answer is read up to a bound, a redirect is followed within the origin only (a renamed repository is one), and
what is no answer of an API is an error in words that name the source.
"""

import json
import time
from dataclasses import dataclass
from typing import Any, Final

import httpx

from dreamforge_cli.models.errors import NetworkError, NotAllowed
from dreamforge_cli.models.fetch.answers import looks_like_a_page, retry_after
from dreamforge_cli.models.fetch.guard import CONNECT_SECONDS
from dreamforge_cli.models.fetch.limits import Limits
from dreamforge_cli.models.fetch.redirects import REDIRECTS, Hop, first_hop, next_hop, origin, shown
from dreamforge_cli.models.sources.base import Credential

#: The listing of a repository with thousands of files is about one MiB.
MAX_ANSWER_BYTES: Final = 16 * 2**20
_ANSWER_SECONDS: Final = 60
_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Answer:
    """A whole answer, its body decoded; any status that another try would not change."""

    url: str
    status: int
    headers: httpx.Headers
    body: bytes

    def json(self) -> Any:
        """The body's JSON; what is none means that something else than the source answered."""
        try:
            return json.loads(self.body, parse_constant=_refused)
        except (ValueError, RecursionError):
            page = " (a web page: does the network want a login?)" if looks_like_a_page(self.body) else ""
            raise NetworkError(f"{self.url} answers with something that is no JSON{page}") from None


class _Later(Exception):
    """Worth another try, after so many seconds if the source said how many."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


def ask(
    http: httpx.Client,
    url: str,
    credential: Credential | None = None,
    *,
    follow: bool = True,
    headers: dict[str, str] | None = None,
    limits: Limits | None = None,
) -> Answer:
    """GET, again while it may help. The token goes to its own origin only; ``follow`` follows within the origin."""
    limits = limits or Limits()
    pause, tries = limits.pause_seconds, limits.tries
    while True:
        try:
            return _once(http, first_hop(url, credential), headers or {}, follow, limits)
        except _Later as later:
            tries -= 1
            wait = pause if later.after is None else later.after
            if tries <= 0 or wait > limits.longest_retry_after_seconds:
                again = "" if later.after is None else f"; it wants to be asked again in {later.after:.0f} s"
                raise NetworkError(f"{later}{again}") from None
            time.sleep(wait)
            pause = min(2 * pause, limits.longest_pause_seconds)


def _once(http: httpx.Client, hop: Hop, headers: dict[str, str], follow: bool, limits: Limits) -> Answer:
    while True:
        answer = _read(http, hop, headers, limits.stall_seconds)
        if answer.status not in REDIRECTS or not follow:
            return answer
        target = next_hop(hop, answer.headers.get("location"))
        if origin(target.url) != origin(hop.url):
            raise NotAllowed(f"{shown(hop.url)} sends its API's users to {shown(target.url)}; not followed")
        hop = target


def _read(http: httpx.Client, hop: Hop, headers: dict[str, str], stall_seconds: float) -> Answer:
    where = shown(hop.url)
    deadline = time.monotonic() + _ANSWER_SECONDS
    patience = httpx.Timeout(stall_seconds, connect=CONNECT_SECONDS, pool=None)
    try:
        with http.stream("GET", hop.url, headers=headers | hop.headers, timeout=patience) as response:
            if response.status_code in _TRY_AGAIN:
                told = f"{where} answers {response.status_code}"
                raise _Later(told, retry_after(response.headers.get("retry-after")))
            body = bytearray()
            for piece in response.iter_bytes():
                body += piece
                if len(body) > MAX_ANSWER_BYTES or time.monotonic() > deadline:
                    raise NetworkError(f"{where} answers with more than an API would, or too slowly")
            return Answer(where, response.status_code, response.headers, bytes(body))
    except httpx.TimeoutException:
        raise _Later(f"{where} does not answer") from None
    except httpx.DecodingError:
        raise NetworkError(f"{where} answers with a broken encoding") from None
    except httpx.TransportError as error:
        raise _Later(f"{where} can't be reached: {type(error).__name__}: {error}"[:200]) from None


def _refused(constant: str) -> Any:
    raise ValueError(constant)
