"""Who the fetcher talks to: no credential arrives at another host, no connection at a private address."""

import base64
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from dreamforge_cli.models.errors import NetworkError, NotAllowed
from dreamforge_cli.models.fetch.fetcher import fetch
from dreamforge_cli.models.fetch.guard import open_client
from dreamforge_cli.models.sources.base import Credential
from tests.integration.models.fetch_kit import FAST, KIB, TOKEN, Source, server_context, some_bytes, source
from tests.standins.faults import Fault
from tests.standins.web import Exchange, Site


@pytest.fixture
def there() -> Iterator[Source]:
    with source(some_bytes(1024 * KIB)) as made:
        yield made


@pytest.fixture
def stranger() -> Iterator[Site]:
    """Host B: it must never see a credential of host A."""
    site = Site(lambda ask: ask.reply(200, b"B", {}), "127.0.0.3")
    yield site
    site.close()


_BASIC = base64.b64encode(f"me:{TOKEN}".encode()).decode()


@pytest.mark.parametrize(
    ("form", "location"),
    [
        ("Authorization header", "{b}/x"),
        ("query token=", "{b}/x?token={t}"),
        ("query api_key=", "{b}/x?a=1&api_key={t}&z=2"),
        ("query, quoted", "{b}/x?whatever=%68f_a-token-nobody-else-may-see"),
        ("path", "{b}/{t}/x"),
        ("user in the URL", "http://me:{t}@{b_host}/x"),
        ("fragment", "{b}/x#{t}"),
        ("cookie", "{b}/x"),
    ],
)
def test_no_form_of_a_credential_arrives_at_another_host(stranger: Site, tmp_path: Path, form: str, location: str):
    target = location.format(b=stranger.url, t=TOKEN, b_host=stranger.authority)
    headers = {"Set-Cookie": f"session={TOKEN}; Path=/", "WWW-Authenticate": "Basic"}
    front = Site(lambda ask: ask.redirect(302, target, headers))
    query = f"?token={TOKEN}" if form.startswith("query") else ""
    try:
        with source(b"B") as there, open_client([front.authority, stranger.authority]) as client:
            credential = Credential(front.url, SecretStr(TOKEN))
            file = there.file(url=f"{front.url}/lasting{query}", credential=credential)
            if form in ("path", "user in the URL"):
                with pytest.raises(NotAllowed) as refused:
                    fetch(file, tmp_path / "x", client, FAST)
                assert TOKEN not in str(refused.value)
            else:
                fetch(file, tmp_path / "x", client, FAST)
                assert len(stranger.requests()) == 1
        assert front.saw(TOKEN), "host A is to get it"
        assert not stranger.saw(TOKEN)
        assert not any({"authorization", "cookie", "referer"} & set(asked.headers) for asked in stranger.requests())
        assert not stranger.saw(_BASIC)
    finally:
        front.close()


def test_a_token_stays_with_its_origin_and_does_not_come_back(tmp_path: Path):
    """A to B to A again: B decides about the second visit, so it goes without."""
    b = Site(lambda ask: ask.redirect(302, f"{a.url}/second"), "127.0.0.3")
    a = Site(lambda ask: ask.reply(200, b"A", {}) if "second" in ask.path else ask.redirect(302, f"{b.url}/x"))
    try:
        with source(b"A") as there, open_client([a.authority, b.authority]) as client:
            file = there.file(url=f"{a.url}/first", credential=Credential(a.url, SecretStr(TOKEN)))
            fetch(file, tmp_path / "x", client, FAST)
        first, second = a.requests()
        assert first.headers["authorization"] == f"Bearer {TOKEN}"
        assert "authorization" not in second.headers
        foreign = there.file(url=f"{a.url}/second", credential=Credential(b.url, SecretStr(TOKEN)))
        with open_client([a.authority]) as client:
            fetch(foreign, tmp_path / "y", client, FAST)
        assert "authorization" not in a.requests()[-1].headers, "it is the token of another origin"
    finally:
        a.close()
        b.close()


def test_no_token_and_no_signed_url_is_written_down(there: Source, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("DEBUG")
    there.fault(Fault(status=500, after=2))
    with there.client() as client, pytest.raises(NetworkError) as caught:
        fetch(there.file(), tmp_path / "x", client, FAST)
    written = (tmp_path / "x.part.json").read_text() + str(caught.value) + repr(there.file())
    for secret in (TOKEN, "X-Amz", "Signature"):
        assert secret not in written
    assert "http" not in (tmp_path / "x.part.json").read_text()
    assert TOKEN not in caplog.text
    assert "X-Amz" not in caplog.text


def test_cookies_proxies_and_netrc_play_no_part(there: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login me password {TOKEN}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with there.client() as client:
        fetch(there.file(credential=None), tmp_path / "x", client, FAST)
    assert not any("authorization" in asked.headers for asked in there.front.requests())


def _own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("203.0.113.1", 9))  # Sends nothing; the system picks the address it would send from.
            return str(probe.getsockname()[0])
        except OSError:
            return "10.0.0.1"


class Canary:
    """Listens on one port of every address of this machine, both families, and counts who connects."""

    def __init__(self) -> None:
        self.connected = 0
        self._socket = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._count, daemon=True).start()

    def _count(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connected += 1
            connection.close()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture(scope="module")
def canary() -> Iterator[Canary]:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 on this machine")
    listening = Canary()
    yield listening
    listening.close()


TARGETS = [
    "127.0.0.1", "127.1", "127.255.255.254", "2130706433", "0x7f000001", "0177.0.0.1", "0.0.0.0", "localhost",
    _own_address(), "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]",
    "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[2001:0:7f00:1::]", "169.254.169.254", "100.100.100.200",
    "[fd00:ec2::254]", "168.63.129.16", "192.0.0.192", "rebinding.example",
]  # fmt: skip


@pytest.mark.parametrize("how", ["asked", "redirected"])
def test_twenty_ways_to_a_private_address_connect_to_nothing(canary: Canary, tmp_path: Path, how: str):
    def resolve(host: str, port: int) -> list[str]:
        if host == "rebinding.example":
            return ["127.0.0.1"]
        return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]

    before = canary.connected
    for target in TARGETS:
        url = f"https://{target}:{canary.port}/model"
        front = Site(lambda ask, url=url: ask.redirect(302, url))  # type: ignore[misc]
        try:
            with source(b"x") as there, open_client([front.authority], resolve=resolve) as client:
                asked = url if how == "asked" else f"{front.url}/lasting"
                with pytest.raises((NotAllowed, NetworkError), match=r"no public address|no URL"):
                    fetch(there.file(url=asked, credential=None), tmp_path / "x", client, FAST)
                with pytest.raises((NotAllowed, httpx.InvalidURL)):
                    client.get(url)
        finally:
            front.close()
    assert canary.connected == before
    assert len(TARGETS) >= 20
    socket.create_connection(("127.0.0.1", canary.port)).close()
    while canary.connected == before:
        threading.Event().wait(0.01)


def test_a_name_is_resolved_once_and_what_was_checked_is_connected_to(there: Source):
    """The system's resolver does not know the name: connecting to anything but the checked address would fail."""
    asked: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else []

    with open_client([f"models.example:{there.front.port}"], resolve=resolve) as client:
        assert client.get(f"http://models.example:{there.front.port}/x").status_code == 302
    assert asked == ["models.example"]
    assert there.front.requests()[0].headers["host"] == f"models.example:{there.front.port}"


def test_one_private_address_among_public_ones_refuses_the_host(canary: Canary):
    before = canary.connected
    with open_client(resolve=lambda host, port: ["8.8.8.8", "127.0.0.1"]) as client, pytest.raises(NotAllowed):
        client.get(f"https://mixed.example:{canary.port}/")
    assert canary.connected == before


def test_plain_http_is_for_allowed_hosts_and_ports_only(there: Source):
    with open_client(["127.0.0.1:1"]) as client, pytest.raises(NotAllowed, match="https only"):
        client.get(there.front.url)
    with open_client(["localhost:1", there.front.authority]) as client:
        assert client.get(f"{there.front.url}/x").status_code == 302


def test_a_name_nobody_knows_is_a_network_error(tmp_path: Path, there: Source):
    with open_client(resolve=lambda host, port: []) as client, pytest.raises(NetworkError, match="resolver"):
        fetch(there.file(url="https://nobody.example/x", credential=None), tmp_path / "x", client, FAST)


@pytest.mark.parametrize("name", ["models.example", "other.example"])
def test_the_name_goes_into_sni_and_host_and_is_what_the_certificate_must_be_for(
    certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
    heard: list[str | None] = []
    with source(b"x") as there:
        context = server_context(certificate, heard)
        hosts: list[str] = []

        def answer(ask: Exchange) -> None:
            hosts.append(ask.headers["host"])
            ask.reply(200, b"x", {})

        tls = Site(answer)
        tls._server.socket = context.wrap_socket(tls._server.socket, server_side=True)
        try:
            with open_client([f"{name}:{tls.port}"], resolve=lambda host, port: ["127.0.0.1"]) as client:
                file = there.file(url=f"https://{name}:{tls.port}/x", credential=None)
                if name == "models.example":
                    fetch(file, tmp_path / "x", client, FAST)
                    assert hosts == [f"{name}:{tls.port}"]
                else:
                    with pytest.raises(NetworkError, match=r"(?i)certificate"):
                        fetch(file, tmp_path / "x", client, FAST)
                    assert hosts == []
        finally:
            tls.close()
    assert set(heard) == {name}
