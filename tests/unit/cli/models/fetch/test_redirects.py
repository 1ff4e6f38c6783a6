"""Where a redirect leads, and what goes along."""

import httpx
import pytest
from pydantic import SecretStr

from dreamforge_cli.models.errors import NetworkError, NotAllowed
from dreamforge_cli.models.fetch.redirects import MAX_REDIRECTS, first_hop, next_hop, origin, shown
from dreamforge_cli.models.sources.base import Credential

TOKEN = "hf_0123456789"
A = Credential("https://a.example", SecretStr(TOKEN))


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("https://a.example/x", True), ("https://A.example:443/x", True), ("https://a.example:444/x", False),
        ("http://a.example/x", False), ("https://b.example/x", False), ("https://a.example.b.example/x", False),
    ],
)  # fmt: skip
def test_a_token_goes_to_its_own_origin_only(url: str, sent: bool):
    assert first_hop(url, A).headers == ({"Authorization": f"Bearer {TOKEN}"} if sent else {})


@pytest.mark.parametrize(
    "location", ["/y", "y?a=1", "//a.example/y", "https://a.example:443/y", "HTTPS://A.EXAMPLE/y#part"]
)
def test_within_an_origin_the_token_stays(location: str):
    hop = next_hop(first_hop("https://a.example/x", A), location)
    assert hop.headers
    assert hop.url.host == "a.example"
    assert not hop.url.fragment


@pytest.mark.parametrize(
    "location", ["https://b.example/", "http://a.example/", "https://a.example:8443/", "//b.example"]
)
def test_elsewhere_it_does_not_and_it_does_not_come_back(location: str):
    hop = next_hop(first_hop("https://a.example/x", A), location)
    assert hop.headers == {}
    assert next_hop(hop, "https://a.example/z").headers == {}


@pytest.mark.parametrize("name", ["token", "api_key", "KEY", "access_token", "whatever"])
def test_tokens_in_a_query_are_taken_out_for_others(name: str):
    hop = next_hop(first_hop(f"https://a.example/x?token={TOKEN}", A), f"https://b.example/y?a=1&{name}={TOKEN}&z=2")
    assert str(hop.url) == "https://b.example/y?a=1&z=2"
    unchanged = "https://b.example/y?X-Amz-Signature=0a%2Fb%2B&token=its-own-token"
    assert str(next_hop(first_hop("https://a.example/x", A), unchanged).url) == unchanged


@pytest.mark.parametrize(
    "location", [f"https://b.example/{TOKEN}", f"https://{TOKEN}.b.example/", "https://b.example/%68f_0123456789/"]
)
def test_a_token_elsewhere_in_the_url_is_refused(location: str):
    with pytest.raises(NotAllowed) as refused:
        next_hop(first_hop("https://a.example/x", A), location)
    assert TOKEN not in str(refused.value)


@pytest.mark.parametrize(
    ("location", "error"),
    [
        (None, NetworkError), ("", NetworkError), ("https://[::1/", NetworkError), ("file:///etc/passwd", NotAllowed),
        ("ftp://a.example/", NotAllowed), ("data:text/plain,x", NotAllowed),
        ("https://me:secret@b.example/", NotAllowed), ("javascript:alert(1)", NotAllowed),
    ],
)  # fmt: skip
def test_bad_locations(location: str | None, error: type[Exception]):
    with pytest.raises(error):
        next_hop(first_hop("https://a.example/x", None), location)


def test_so_many_redirects_and_no_more():
    hop = first_hop("https://a.example/", None)
    for _ in range(MAX_REDIRECTS):
        hop = next_hop(hop, "https://a.example/")
    with pytest.raises(NetworkError):
        next_hop(hop, "https://a.example/")


@pytest.mark.parametrize("url", ["https://me@a.example/", "https://me:pass@a.example/", "https://[::1/"])
def test_a_source_s_address_must_be_plain(url: str):
    with pytest.raises(NotAllowed):
        first_hop(url, None)


def test_what_is_shown_holds_no_secret():
    hop = first_hop(f"https://a.example:8443/x?token={TOKEN}#{TOKEN}", A)
    assert shown(hop.url) == "https://a.example:8443/x"
    assert TOKEN not in repr(hop)
    assert origin(httpx.URL("http://A.example")) == ("http", "a.example", 80)
