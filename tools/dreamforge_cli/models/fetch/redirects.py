"""Redirects by hand: https all the way, few hops, and a token never leaves the origin it belongs to.

Pure: the fetcher sends the requests, these functions say where to and with what.
"""

from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import quote, unquote

import httpx

from dreamforge_cli.models.errors import NetworkError, NotAllowed
from dreamforge_cli.models.sources.base import Credential

MAX_REDIRECTS: Final = 5
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
#: Query parameters that sources take a token in.
_TOKEN_PARAMETERS = frozenset({"token", "access_token", "api_key", "apikey", "key", "auth", "authorization"})
#: What is shorter is found in any URL by chance.
_SECRET_LENGTH = 8


@dataclass(frozen=True)
class Hop:
    """Where to ask, and the token that may be sent there; ``count`` redirects led here."""

    url: httpx.URL
    credential: Credential | None = None
    count: int = 0
    #: What must not appear in the URL of another origin: the token, and those in the first URL's query.
    secrets: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"Hop({shown(self.url)}, {self.count})"

    @property
    def headers(self) -> dict[str, str]:
        """The Authorization header, where it may go."""
        if self.credential is None:
            return {}
        return {"Authorization": f"Bearer {self.credential.token.get_secret_value()}"}


def first_hop(url: str, credential: Credential | None) -> Hop:
    """The source's own address; its token goes along only if this is the origin the token is for."""
    asked = _parsed(url)
    given = asked.params.multi_items()
    secrets = {value for name, value in given if name.lower() in _TOKEN_PARAMETERS and len(value) >= _SECRET_LENGTH}
    if credential is not None:
        secrets.add(credential.token.get_secret_value())
        if origin(_parsed(credential.origin)) != origin(asked):
            credential = None
    return Hop(asked, credential, 0, frozenset(secrets))


def next_hop(hop: Hop, location: str | None) -> Hop:
    """Follow one redirect. Another origin gets no header and none of our tokens; the token does not come back."""
    if hop.count >= MAX_REDIRECTS:
        raise NetworkError(f"{shown(hop.url)} redirects once more after {MAX_REDIRECTS} redirects")
    if not location:
        raise NetworkError(f"{shown(hop.url)} redirects to nowhere")
    try:
        target = hop.url.join(location)
    except (httpx.InvalidURL, ValueError):
        raise NetworkError(f"{shown(hop.url)} redirects to something that is no URL") from None
    if target.scheme not in ("https", "http") or not target.host or target.userinfo:
        raise NotAllowed(f"{shown(hop.url)} redirects to {target.scheme or 'no'}: URL, which is refused")
    target = target.copy_with(fragment=None)
    if origin(target) == origin(hop.url):
        return replace(hop, url=target, count=hop.count + 1)
    return Hop(_without(target, hop.secrets), None, hop.count + 1, hop.secrets)


def origin(url: httpx.URL) -> tuple[str, str, int]:
    """Scheme, host and port: what a token belongs to."""
    return url.scheme, url.host.lower(), url.port or (443 if url.scheme == "https" else 80)


def shown(url: httpx.URL) -> str:
    """The URL for people: no query, no fragment, no user, since each of them may hold a secret."""
    port = f":{url.port}" if url.port else ""
    return f"{url.scheme}://{url.host}{port}{url.path}"[:200]


def _parsed(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        raise NotAllowed("the source gave an address that is no URL") from None
    if parsed.userinfo:
        raise NotAllowed(f"{shown(parsed)}: a user name or password in a URL is refused")
    return parsed.copy_with(fragment=None)


def _without(url: httpx.URL, secrets: frozenset[str]) -> httpx.URL:
    """Without the query parameters that hold one of our secrets; refused when one is anywhere else."""
    kept = [(name, value) for name, value in url.params.multi_items() if not _holds(f"{name} {value}", secrets)]
    if len(kept) != len(url.params.multi_items()):
        url = url.copy_with(params=kept)
    if _holds(str(url), secrets):
        raise NotAllowed("a redirect would carry the token to another host; refused")
    return url


def _holds(text: str, secrets: frozenset[str]) -> bool:
    forms = (text, unquote(text))
    return any(form in given for secret in secrets for form in (secret, quote(secret, safe="")) for given in forms)
