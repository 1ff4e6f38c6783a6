"""The commands against a running stack: what a person sees and what a program gets."""

import hashlib
import json
import re
import subprocess
from pathlib import Path

import pytest

from dreamforge_cli.client import BrokenDownload, Client, Refused, ServerUnreachable
from dreamforge_cli.embedded.server import free_port
from tests.servers.relay import cutting_relay
from tests.servers.stack import Up, clean_environment, command

SMALL = ("--width", "256", "--height", "256", "--steps", "4")


def dreamforge(base: str, *arguments: str | Path, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        timeout=120,
        cwd=cwd,
        env=clean_environment(DF_API_BASE=base),
    )


def ok(base: str, *arguments: str | Path) -> str:
    done = dreamforge(base, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def finished(stack: Up) -> str:
    """A job of three images that has succeeded."""
    job_id = stack.post(count=3, labels={"made-by": "test"}, prompt="a lighthouse, \x1b[31m red".replace("\x1b", ""))
    stack.wait_for(job_id)
    return job_id


def test_create_prints_the_id_alone(stack):
    job_id = ok(stack.url, "jobs", "create", "a boat", *SMALL).strip()
    assert re.fullmatch(r"[0-9a-f-]{36}", job_id)
    assert stack.wait_for(job_id)["params"]["prompt"] == "a boat"


def test_create_with_out_waits_and_saves_what_the_server_announced(stack, tmp_path):
    arguments = ("jobs", "create", "a boat", *SMALL, "--count", "3", "--format", "jpg", "--label", "a=b=c")
    out = ok(stack.url, *arguments, "--out", tmp_path)
    lines = re.findall(r"^(\S+)  seed=(\d+)  sha256=([0-9a-f]{64})$", out, re.M)
    assert len(lines) == 3
    assert len({seed for _, seed, _ in lines}) == 3
    for path, seed, digest in lines:
        data = Path(path).read_bytes()
        assert data.startswith(b"\xff\xd8")
        assert hashlib.sha256(data).hexdigest() == digest
        assert seed in Path(path).name
    assert len(list(tmp_path.iterdir())) == 3


def test_create_hands_every_option_over(stack):
    out = ok(
        stack.url,
        *("jobs", "create", "x", *SMALL, "--seed", "7", "--model", "sketch", "--preset", "draft", "--label", "k=v"),
        "--json",
    )
    job = json.loads(out)
    assert (job["params"]["seed"], job["model_id"], job["labels"]) == (7, "sketch", {"k": "v"})
    stack.wait_for(job["id"])


def test_watch_prints_every_event_as_a_line_and_the_job_last(stack):
    lines = [
        json.loads(line)
        for line in ok(stack.url, "jobs", "create", "x", *SMALL, "--count", "2", "--watch", "--json").splitlines()
    ]
    assert lines[-1]["event"] == "job"
    assert lines[-1]["status"] == "succeeded"
    seqs = [line["seq"] for line in lines[:-1]]
    assert seqs == sorted(set(seqs))
    assert sum(line["event"] == "artifact" for line in lines) == 2


def test_watching_a_finished_job_shows_it_whole(stack, finished):
    done = dreamforge(stack.url, "jobs", "watch", finished)
    assert done.returncode == 0
    assert done.stderr.count("stored, seed") == 3
    assert "job succeeded" in done.stderr
    assert finished in done.stdout


def test_list_filters_and_pages(stack, finished):
    page = json.loads(ok(stack.url, "jobs", "list", "--label", "made-by=test", "--status", "succeeded", "--json"))
    assert [job["id"] for job in page["items"]] == [finished]
    stack.wait_for(stack.post())
    first = json.loads(ok(stack.url, "jobs", "list", "--limit", "1", "--json"))
    rest = json.loads(ok(stack.url, "jobs", "list", "--cursor", first["next_cursor"], "--json"))
    assert first["items"][0]["id"] not in [job["id"] for job in rest["items"]]
    assert finished in ok(stack.url, "jobs", "list")


def test_get_logs_artifacts_and_models(stack, finished, tmp_path):
    assert json.loads(ok(stack.url, "jobs", "get", finished, "--json"))["completed"] == 3
    assert "3/3 images" in ok(stack.url, "jobs", "get", finished)
    logs = [json.loads(line) for line in ok(stack.url, "jobs", "logs", finished, "--json").splitlines()]
    assert all({"seq", "ts", "level", "code", "message"} <= line.keys() for line in logs)
    items = json.loads(ok(stack.url, "jobs", "artifacts", finished, "--json"))["items"]
    assert [item["item_index"] for item in items] == [0, 1, 2]
    assert items[0]["sha256"] in ok(stack.url, "jobs", "artifacts", finished)
    saved = json.loads(ok(stack.url, "jobs", "artifacts", finished, "--out", tmp_path, "--json"))
    assert [image["sha256"] for image in saved] == [item["sha256"] for item in items]
    assert "sketch" in ok(stack.url, "model", "list")
    assert "sketch" in [m["id"] for m in json.loads(ok(stack.url, "model", "list", "--json"))["items"]]


def test_cancel_ends_a_job_and_watching_it_exits_with_1(stack):
    job_id = ok(stack.url, "jobs", "create", "x", "--count", "100").strip()
    assert json.loads(ok(stack.url, "jobs", "cancel", job_id, "--json"))["id"] == job_id
    watched = dreamforge(stack.url, "jobs", "watch", job_id)
    assert watched.returncode == 1, watched.stdout + watched.stderr
    assert "canceled" in watched.stdout
    assert "canceled" in ok(stack.url, "jobs", "cancel", job_id)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("jobs", "create", "x", "--width", "257"), ("422", "width", "8")),
        (("jobs", "create", "   "), ("422", "prompt")),
        (("jobs", "create", "x", "--model", "nope"), ("422", "unknown_model")),
        (("jobs", "create", "x", "--label", "nokey"), ("--label nokey", "KEY=VALUE")),
        (("jobs", "get", "00000000-0000-7000-8000-000000000000"), ("404",)),
        (("jobs", "watch", "00000000-0000-7000-8000-000000000000"), ("404",)),
        (("jobs", "list", "--limit", "0"), ("400", "limit")),
        (("jobs", "list", "--status", "done"), ("--status",)),
        (("jobs", "create"), ("prompt",)),
        (("frobnicate",), ("frobnicate",)),
    ],
)
def test_wrong_usage_is_explained_and_exits_with_2(stack, arguments, words):
    done = dreamforge(stack.url, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert all(word.lower() in done.stderr.lower() for word in words), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [("jobs", "list"), ("jobs", "create", "x"), ("model", "list"), ("demo",)])
def test_no_server_exits_with_3_and_says_what_to_do(arguments, tmp_path):
    done = dreamforge(f"http://127.0.0.1:{free_port()}", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert "dreamforge up" in done.stderr


def test_a_wrong_api_base_is_named():
    done = dreamforge("localhost:8001", "jobs", "list")
    assert done.returncode == 2
    assert "DF_API_BASE" in done.stderr


def test_demo_uses_the_server_it_is_given(stack, tmp_path):
    done = dreamforge(stack.url, "demo", "--count", "2", "--out", tmp_path / "out", "a hill", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"seed=\d+  sha256=[0-9a-f]{64}$", done.stdout, re.M)) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_demo_brings_its_own_stack_and_takes_it_down(tmp_path):
    done = subprocess.run(
        command("demo", "--out", tmp_path / "out", "--data", tmp_path / "data"),
        capture_output=True,
        text=True,
        timeout=200,
        cwd=tmp_path,
        env=clean_environment(DF_RUNNER_BACKEND="sketch"),
    )
    assert done.returncode == 0, done.stderr
    path, digest = re.findall(r"^(\S+)  seed=\d+  sha256=([0-9a-f]{64})$", done.stdout, re.M)[0]
    assert hashlib.sha256(Path(path).read_bytes()).hexdigest() == digest
    assert "sketch" in done.stderr
    listed = subprocess.run(["ps", "-axww", "-o", "command="], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path) not in listed


@pytest.mark.parametrize("cut_after", [900, 2500])
def test_a_cut_stream_is_resumed_with_every_event_once(stack, finished, cut_after):
    with Client(stack.url) as straight:
        whole = list(straight.events(finished))
    host, port = stack.url.removeprefix("http://").split(":")
    with cutting_relay(host, int(port), cut_after, cuts=3) as (base, relayed), Client(base) as client:
        assert list(client.events(finished)) == whole
    assert len(relayed) == 3


def test_resuming_after_the_last_event_is_the_end(stack, finished):
    with Client(stack.url) as client:
        whole = list(client.events(finished))
        last = whole[-1].data["seq"]
        assert list(client.events(finished, after=last)) == []
        assert list(client.events(finished, after=last - 1)) == whole[-1:]


def test_a_server_that_goes_away_for_good_is_said(finished):
    with (
        Client(f"http://127.0.0.1:{free_port()}", patience_seconds=0.3) as client,
        pytest.raises(ServerUnreachable, match="DF_API_BASE"),
    ):
        list(client.events(finished))


def test_a_download_that_differs_from_its_digest_is_not_kept(stack, finished, tmp_path):
    with Client(stack.url) as client:
        artifact = client.artifacts(finished)[0] | {"sha256": "0" * 64}
        with pytest.raises(BrokenDownload, match="sha256"):
            client.download(artifact, tmp_path / "x.png")
        tampered = artifact | {"url": artifact["url"].replace("signature=", "signature=0")}
        with pytest.raises(Refused, match="403"):
            client.download(tampered, tmp_path / "x.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("up",),
        ("demo",),
        ("doctor",),
        ("version",),
        ("jobs",),
        ("model",),
        ("model", "list"),
        *(("jobs", name) for name in ("create", "list", "get", "watch", "cancel", "logs", "artifacts")),
    ],
)
def test_help_explains_each_command_and_option(arguments):
    done = dreamforge("http://127.0.0.1:1", *arguments, "--help")
    assert done.returncode == 0
    assert "Usage: dreamforge" in done.stdout.replace("python -m dreamforge_cli", "dreamforge")


def test_doctor_looks_without_changing_anything(tmp_path):
    done = dreamforge(f"http://127.0.0.1:{free_port()}", "doctor", "--data", tmp_path / "d", "--json", cwd=tmp_path)
    items = {item["name"]: item for item in json.loads(done.stdout)["items"]}
    assert {"Python", "PostgreSQL", "Redis", "Data folder", "SDXL libraries", "Checkpoint", "GPU"} <= items.keys()
    for item in items.values():
        assert item["verdict"] == "ok" or (item["why"] and item["mend"])
    assert list(tmp_path.iterdir()) == []


def test_doctor_finds_what_stops_up(tmp_path):
    url = f"postgresql://u:hunter2@127.0.0.1:{free_port()}/x"
    done = subprocess.run(
        command("doctor"),
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env=clean_environment(DF_DATABASE_URL=url),
    )
    assert done.returncode == 1
    assert "missing" in done.stdout
    assert "DF_DATABASE_URL" in done.stdout
    assert "hunter2" not in done.stdout + done.stderr


def test_version(stack):
    assert re.match(r"dreamforge \d+\.\d+", ok(stack.url, "version"))
    assert "dreamforge" in json.loads(ok(stack.url, "version", "--json"))
