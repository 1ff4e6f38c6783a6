"""The command line against the running system, as a person and a program use it."""

import hashlib
import json
import re
import subprocess
from pathlib import Path

from tests.e2e.system import System
from tests.servers.stack import clean_environment, command

SMALL = ("--width", "256", "--height", "256", "--steps", "2")


def run(base: str, *arguments: str | Path, status: int = 0) -> str:
    done = subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        timeout=90,
        env=clean_environment(DF_API_BASE=base),
        check=False,
    )
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stdout


def cli(system: System, *arguments: str | Path, status: int = 0) -> str:
    return run(system.up.url, *arguments, status=status)


def test_demo_saves_images_and_says_path_seed_sha256(system, tmp_path):
    out = cli(system, "demo", "--count", "2", "--out", tmp_path / "out", "a lighthouse")
    found = re.findall(r"^(\S+)  seed=(\d+)  sha256=([0-9a-f]{64})$", out, re.MULTILINE)
    assert len(found) == 2
    for path, seed, digest in found:
        assert hashlib.sha256(Path(path).read_bytes()).hexdigest() == digest
        assert f"_{seed}." in path


def test_create_watch_out(system, tmp_path):
    out = cli(system, "jobs", "create", "a lighthouse", *SMALL, "--watch", "--out", tmp_path, "--label", "a=b")
    (line,) = out.splitlines()
    path, seed, digest = line.replace("seed=", "").replace("sha256=", "").split("  ")
    assert hashlib.sha256(Path(path).read_bytes()).hexdigest() == digest
    listed = json.loads(cli(system, "jobs", "list", "--json", "--label", "a=b", "--limit", "1"))
    assert [job["labels"] for job in listed["items"]] == [{"a": "b"}]
    assert f"_{seed}.png" in path


def test_programs_read_json(system):
    job = json.loads(cli(system, "jobs", "create", "a lighthouse", *SMALL, "--seed", "9", "--json"))
    events = [json.loads(line) for line in cli(system, "jobs", "watch", job["id"], "--json").splitlines()]
    assert events[-1]["event"] == "job"
    assert events[-1]["status"] == "succeeded"
    assert [event["seq"] for event in events[:-1]] == list(range(1, len(events)))
    (artifact,) = json.loads(cli(system, "jobs", "artifacts", job["id"], "--json"))["items"]
    assert artifact["seed"] == 9
    assert json.loads(cli(system, "jobs", "get", job["id"], "--json"))["id"] == job["id"]
    assert all(json.loads(line)["code"] for line in cli(system, "jobs", "logs", job["id"], "--json").splitlines())
    models = json.loads(cli(system, "model", "list", "--json"))
    assert "sketch" in json.dumps(models)


def test_exit_1_for_a_job_that_did_not_succeed(system):
    job = json.loads(
        cli(system, "jobs", "create", "x", "--count", "20", "--width", "1536", "--height", "1536", "--json")
    )
    cli(system, "jobs", "cancel", job["id"])
    system.client.wait(job["id"], "canceled")
    cli(system, "jobs", "watch", job["id"], status=1)
    assert cli(system, "jobs", "cancel", job["id"]).split()[:2] == [job["id"], "canceled"]


def test_exit_2_for_wrong_usage(system):
    cli(system, "jobs", "create", status=2)
    cli(system, "jobs", "create", "x", "--width", "7", status=2)
    cli(system, "jobs", "get", "01a1fd6e-9c4f-75a0-92d8-aebb8c5f6838", status=2)


def test_exit_3_without_a_server():
    run("http://127.0.0.1:9", "jobs", "list", status=3)
