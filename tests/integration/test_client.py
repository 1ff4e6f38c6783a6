"""The client against servers that break off, and against what is no server of ours."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dreamforge.settings import load
from dreamforge_cli.client import Client, ServerUnreachable
from dreamforge_cli.main import app
from dreamforge_cli.model import listing
from dreamforge_cli.settings import CliSettings
from tests.standins.web import Exchange, Site

OK, USAGE, NETWORK = 0, 2, 3
STATE = b'id: 1\nevent: state\ndata: {"status": "running", "seq": 1}\n\n'
REST = b'id: 2\nevent: state\ndata: {"status": "succeeded", "seq": 2}\n\nid: 2\nevent: end\ndata: {}\n\n'
HEARTBEAT = b": heartbeat\n\n"


@contextmanager
def site(answer: Callable[[Exchange], None]) -> Iterator[Site]:
    opened = Site(answer)
    try:
        yield opened
    finally:
        opened.close()


def stream(ask: Exchange, *pieces: bytes, announced: int = 0) -> None:
    """An event stream; with more bytes announced than come, it is one that was cut."""
    ask.reply(200, b"".join(pieces), {"Content-Type": "text/event-stream", **_length(announced)})
    ask.close_connection = True


def _length(announced: int) -> dict[str, str]:
    return {"Content-Length": str(announced), "Connection": "close"} if announced else {}


def quiet_for(seconds: float, ask: Exchange) -> None:
    """An event, then heartbeats for longer than that, then a cut."""
    ask.send_response(200)
    ask.send_header("Content-Type", "text/event-stream")
    ask.send_header("Content-Length", "1000000")
    ask.end_headers()
    ask.wfile.write(STATE)
    over = time.monotonic() + seconds
    while time.monotonic() <= over:
        ask.wfile.write(HEARTBEAT)
        ask.site.ending.wait(seconds / 10)
    ask.close_connection = True


def test_a_quiet_stream_that_breaks_is_taken_up_again():
    resumed: list[str | None] = []

    def answer(ask: Exchange) -> None:
        resumed.append(ask.headers["Last-Event-ID"])
        if len(resumed) == 1:
            quiet_for(0.3, ask)
        else:
            stream(ask, REST)

    with site(answer) as there, Client(there.url, patience_seconds=0.2) as client:
        assert [event.data["seq"] for event in client.events("x")] == [1, 2]
    assert resumed == ["0", "1"]


def test_a_connection_that_brought_but_a_heartbeat_was_one():
    """Without any patience only what is heard keeps the client at it."""
    cut = [STATE, HEARTBEAT, HEARTBEAT]

    def answer(ask: Exchange) -> None:
        if cut:
            stream(ask, cut.pop(0), announced=1000)
        else:
            stream(ask, REST)

    with site(answer) as there, Client(there.url, patience_seconds=0) as client:
        assert [event.data["seq"] for event in client.events("x")] == [1, 2]


def test_what_was_heard_once_does_not_keep_it_at_it_for_good():
    heard = [STATE, HEARTBEAT]

    def answer(ask: Exchange) -> None:
        if heard:
            stream(ask, heard.pop(0), announced=1000)
        else:
            ask.close_connection = True  # no answer at all

    with (
        site(answer) as there,
        Client(there.url, patience_seconds=0.2) as client,
        pytest.raises(ServerUnreachable, match="DF_API_BASE"),
    ):
        list(client.events("x"))


@pytest.fixture
def list_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """``model list`` where nobody has named a server; exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DF_MODELS_ROOT", str(tmp_path / "models"))

    def run(url: str, *more: str) -> tuple[int, str, str]:
        unnamed = CliSettings.model_construct(_fields_set=set(), api_base=url)
        monkeypatch.setattr(listing, "load", lambda kind: unnamed if kind is CliSettings else load(kind))
        done = CliRunner().invoke(app, ["model", "list", *more], catch_exceptions=False)
        return done.exit_code, done.stdout, done.stderr

    return run


def refuse(ask: Exchange) -> None:
    problem = {"title": "Unavailable", "status": 503, "code": "unavailable", "detail": "the database is away"}
    ask.json(503, problem, {"Content-Type": "application/problem+json"})


STRANGERS: dict[str, Callable[[Exchange], None]] = {
    "a page": lambda ask: ask.html(200, "Grafana"),
    "not found": lambda ask: ask.html(404, "Not Found"),
    "not found, in JSON": lambda ask: ask.json(404, {"detail": "Not Found"}),
    "a proxy without a server": lambda ask: ask.html(503, "Service Unavailable"),
    "another program's models": lambda ask: ask.json(200, {"object": "list", "data": [{"id": "llama"}]}),
    "a list": lambda ask: ask.json(200, ["sketch"]),
    "names for items": lambda ask: ask.json(200, {"items": ["sketch"]}),
}


@pytest.mark.parametrize("answer", STRANGERS.values(), ids=STRANGERS.keys())
def test_the_disk_is_listed_when_a_stranger_answers(list_at, tmp_path, answer):
    with site(answer) as there:
        status, said, remarked = list_at(there.url)
        assert (status, json.loads(list_at(there.url, "--json")[1])) == (OK, {"items": [], "source": "disk"})
    assert said.split() == ["ID", "KIND", "INSTALLED", "ENABLED", "SIZE", "SHA256", "NAME"]
    assert f"what answers at {there.url} is no Dream Forge server" in remarked
    assert f"these are the models in {tmp_path / 'models'}" in remarked


def test_a_server_of_ours_in_trouble_is_said(list_at):
    with site(refuse) as there:
        assert list_at(there.url) == (NETWORK, "", "dreamforge: 503 unavailable: the database is away\n")


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (refuse, NETWORK),
        (STRANGERS["not found"], USAGE),
        (STRANGERS["a page"], NETWORK),
        (STRANGERS["a list"], NETWORK),
    ],
    ids=["503", "404", "a page", "a list"],
)
@pytest.mark.parametrize("line", ["model list", "jobs list", "jobs logs x", "jobs artifacts x"])
def test_a_server_that_was_named_is_taken_at_its_word(monkeypatch, answer, status, line):
    with site(answer) as there:
        monkeypatch.setenv("DF_API_BASE", there.url)
        done = CliRunner().invoke(app, line.split(), catch_exceptions=False)
    assert (done.exit_code, done.stdout) == (status, "")
    assert done.stderr.startswith("dreamforge: ")
