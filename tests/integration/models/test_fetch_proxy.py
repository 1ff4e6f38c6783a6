"""Downloads through a proxy: it sees names and nothing else, and it is no way around the guard."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from dreamforge_cli.main import app
from dreamforge_cli.models.errors import NetworkError, NotAllowed
from dreamforge_cli.models.fetch.fetcher import fetch
from dreamforge_cli.models.fetch.guard import open_client
from dreamforge_cli.models.sources.base import Credential
from tests.integration.models.fetch_kit import FAST, TOKEN, Source, server_context, source
from tests.standins.proxy import Proxy
from tests.standins.web import Exchange, Site

HOST = "models.example"
NOT_ALLOWED = 5


@dataclass
class Far:
    """A source over TLS that only the proxy finds."""

    site: Site
    proxy: Proxy
    url: str
    names: list[str | None]

    @property
    def proxy_url(self) -> str:
        return f"http://me:secret@{self.proxy.authority}"


@pytest.fixture
def far(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Far]:
    monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
    names: list[str | None] = []

    def answer(ask: Exchange) -> None:
        ask.reply(200, b"x", {})

    site = Site(answer)
    site._server.socket = server_context(certificate, names).wrap_socket(site._server.socket, server_side=True)
    proxy = Proxy({f"{HOST}:{site.port}": (site.host, site.port)})
    yield Far(site, proxy, f"https://{HOST}:{site.port}/a/path", names)
    proxy.close()
    site.close()


@pytest.fixture
def there() -> Iterator[Source]:
    with source(b"x") as made:
        yield made


def unknown(host: str, port: int) -> list[str]:
    """A machine without a resolver for the outside, as behind many proxies."""
    raise OSError(f"{host} is not known")


def test_the_proxy_finds_the_host_and_sees_its_name_only(far: Far, there: Source, tmp_path: Path):
    origin = far.url.removesuffix("/a/path")
    file = there.file(url=far.url, credential=Credential(origin, SecretStr(TOKEN)))
    with open_client(resolve=unknown, proxy_url=far.proxy_url) as client:
        fetch(file, tmp_path / "x", client, FAST)
    assert (tmp_path / "x").read_bytes() == b"x"
    assert set(far.names) == {HOST}, "TLS is with the source, not with the proxy"
    assert far.site.saw(TOKEN)
    assert set(far.proxy.targets) == {f"{HOST}:{far.site.port}"}
    assert not far.proxy.saw(TOKEN)
    assert not far.proxy.saw("path")
    login = base64.b64encode(b"me:secret").decode()
    assert {asked.headers["proxy-authorization"] for asked in far.proxy.requests()} == {f"Basic {login}"}
    assert not far.site.saw(login)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "[::1]", "2130706433", "localhost", "inside.example"]
)
def test_what_this_machine_knows_as_private_is_not_asked_of_the_proxy(far: Far, host: str):
    def known(name: str, port: int) -> list[str]:
        private = {"localhost": "127.0.0.1", "2130706433": "127.0.0.1", "inside.example": "10.1.2.3"}
        return [private.get(name, name)]

    with open_client(resolve=known, proxy_url=far.proxy_url) as client, pytest.raises(NotAllowed, match="public"):
        client.get(f"https://{host}:{far.site.port}/")
    assert far.proxy.requests() == []


def test_plain_http_is_no_more_allowed_than_without(far: Far):
    with (
        open_client(resolve=unknown, proxy_url=far.proxy_url) as client,
        pytest.raises(NotAllowed, match="https only"),
    ):
        client.get(f"http://{HOST}/x")
    assert far.proxy.requests() == []


def test_allowed_hosts_are_reached_without_it(far: Far, there: Source, tmp_path: Path):
    with there.client(proxy_url=far.proxy_url) as client:
        fetch(there.file(), tmp_path / "x", client, FAST)
    assert far.proxy.requests() == []


def test_a_proxy_that_refuses_is_asked_once(far: Far, there: Source, tmp_path: Path):
    file = there.file(url="https://elsewhere.example/x", credential=None)
    with open_client(resolve=unknown, proxy_url=far.proxy_url) as client, pytest.raises(NotAllowed, match="403"):
        fetch(file, tmp_path / "x", client, FAST)
    assert far.proxy.targets == ["elsewhere.example:443"]


def test_a_proxy_that_does_not_get_there_is_a_network_error(far: Far, there: Source, tmp_path: Path):
    far.proxy.refusal = 502
    file = there.file(url="https://elsewhere.example/x", credential=None)
    with open_client(resolve=unknown, proxy_url=far.proxy_url) as client, pytest.raises(NetworkError, match="502"):
        fetch(file, tmp_path / "x", client, FAST)
    assert len(far.proxy.targets) > 1


def test_the_command_takes_it_from_its_own_setting_and_says_so(
    far: Far, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The host is an address, so that nobody has to look it up; the proxy refuses it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "https://8.8.8.8")
    monkeypatch.setenv("DF_MODEL_PROXY_URL", far.proxy_url)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    line = ["model", "download", "hf:a/b", "--root", str(tmp_path / "models"), "--json"]
    done = CliRunner().invoke(app, line, catch_exceptions=False)
    assert done.exit_code == NOT_ALLOWED
    assert set(far.proxy.targets) == {"8.8.8.8:443"}
    assert "DF_MODEL_PROXY_URL" in done.output
    assert "secret" not in done.output


@pytest.mark.parametrize("wrong", ["proxy.internal:3128", "http://me:secret@proxy.internal", "socks5://secret:1"])
def test_a_setting_that_is_no_proxy_is_told_without_its_password(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DF_MODEL_PROXY_URL", wrong)
    done = CliRunner().invoke(app, ["model", "list", "--root", str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 2
    assert "DF_MODEL_PROXY_URL" in done.output
    assert "secret" not in done.output
