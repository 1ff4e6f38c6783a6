"""`dreamforge up` as a person meets it: real processes, real servers, real signals."""

import json
import signal
import socket
import subprocess
from pathlib import Path

import httpx
import psutil
import pytest

from dreamforge_cli.embedded.server import free_port
from tests.processes import gone
from tests.servers.stack import Up, clean_environment, command, until

CHILDREN = {
    "api": ("dreamforge_api",),
    "worker": ("dreamforge_api.worker",),
    "runner": ("dreamforge_runner", "serve"),
    "redis": ("redis.conf",),
    "postgres": ("postgres", "-D"),
}


def refused(*arguments: str | Path, cwd: Path, **environment: str) -> tuple[int, str, str]:
    """A run of `up` that must end by itself; exit status, stdout, stderr."""
    done = subprocess.run(
        command("up", *arguments),
        capture_output=True,
        text=True,
        timeout=60,
        cwd=cwd,
        env=clean_environment(**environment),
    )
    return done.returncode, done.stdout, done.stderr


def is_ready(stack: Up) -> bool:
    with stack.api() as api:
        try:
            return api.get("/readyz").status_code == 200
        except httpx.HTTPError:
            return False


def find_child(stack: Up, name: str) -> psutil.Process | None:
    """By command line; Redis renames itself, so it is known by its program."""
    if name == "redis":
        return next(iter(stack.named("redis")), None)
    return stack.child(*CHILDREN[name])


def test_ready_means_ready(stack):
    until(lambda: is_ready(stack), what="readiness")
    assert stack.wait_for(stack.post(count=2))["completed"] == 2


def test_stderr_says_what_was_taken_and_logs_are_ndjson(stack):
    remarks = stack.remarks()
    for word in ("PostgreSQL", "Redis", "backend: sketch", str(stack.data)):
        assert word in remarks
    names = {path.name for path in (stack.data / "logs").iterdir()}
    assert {"api.ndjson", "worker.ndjson", "runner-0.ndjson", "postgres.ndjson", "redis.ndjson"} <= names
    for path in (stack.data / "logs").iterdir():
        for line in path.read_text().splitlines():
            assert isinstance(json.loads(line), dict)


def test_no_prompt_in_any_log(stack):
    stack.wait_for(stack.post(prompt="xyzzy-secret-words"))
    for path in (stack.data / "logs").iterdir():
        assert "xyzzy" not in path.read_text()


@pytest.mark.parametrize("name", CHILDREN)
def test_a_killed_child_comes_back_and_work_goes_on(stack, name):
    victim = find_child(stack, name)
    assert victim
    victim.kill()
    until(lambda: (c := find_child(stack, name)) and c.pid != victim.pid, what=f"{name} again")

    until(lambda: is_ready(stack), what="readiness")
    stack.wait_for(stack.post())


def test_a_runner_killed_in_the_middle_of_a_batch_loses_nothing(stack):
    job_id = stack.post(count=12, width=1024, height=1024)
    stack.until_completed(job_id, 2)
    runner = find_child(stack, "runner")
    assert runner
    runner.kill()
    job = stack.wait_for(job_id, seconds=120)
    assert job["completed"] == 12
    with stack.api() as api:
        items = [a["item_index"] for a in api.get(f"/v1/jobs/{job_id}/artifacts").json()["items"]]
    assert sorted(items) == list(range(12))


@pytest.mark.parametrize("port", ["another", "the same"])
def test_a_second_up_on_the_same_folder_says_so(stack, tmp_path, port):
    number = "0" if port == "another" else stack.url.rpartition(":")[2]
    status, out, err = refused("--data", stack.data, "--port", number, cwd=tmp_path)
    assert (status, out) == (2, "")
    assert f"pid {stack.process.pid}" in err
    assert stack.url in err


def test_a_used_port_is_said_before_anything_starts(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        status, out, err = refused("--data", tmp_path / "d", "--port", port, cwd=tmp_path)
    assert (status, out) == (2, "")
    assert f"--port {port}" in err
    assert not (tmp_path / "d").exists()


def test_sdxl_without_a_checkpoint_names_the_path(tmp_path):
    model = tmp_path / "none.safetensors"
    status, out, err = refused(
        "--data", tmp_path / "d", "--port", "0", "--backend", "sdxl", "--model", model, cwd=tmp_path
    )
    assert (status, out) == (2, "")
    assert str(model) in err


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DF_STORE", "minio"),
        ("DF_MAX_QUEUED", "many"),
        ("DF_REDIS_URL", "localhost"),
        ("DF_ITEM_TIMEOUT_SECONDS", "-1"),
    ],
)
@pytest.mark.parametrize("place", ["environment", ".env"])
def test_a_wrong_setting_is_one_line_that_names_it(tmp_path, variable, value, place):
    given = {variable: value} if place == "environment" else {}
    if place == ".env":
        (tmp_path / ".env").write_text(f"{variable}={value}\n")
    status, out, err = refused("--data", tmp_path / "d", "--port", "0", cwd=tmp_path, **given)
    assert (status, out) == (2, "")
    assert sum(variable in line for line in err.splitlines()) == 1
    assert "Traceback" not in err
    assert not (tmp_path / "d" / "postgres").exists()


def test_ctrl_c_twice_in_a_batch_then_up_again_finishes_it(tmp_path):
    """A runner that stops is no runner that dies: two of those would end the job."""
    first = Up(tmp_path / "data", "--backend", "sketch").start()
    try:
        done = first.wait_for(first.post())
        job_id = first.post(count=24, width=1024, height=1024)
        first.until_completed(job_id, 2)
        children = first.children()
        assert first.send(signal.SIGINT) == 0
        assert [c for c in children if not gone(c)] == []
        stored = {path: path.stat().st_mtime_ns for path in (tmp_path / "data" / "objects").rglob("*.png")}
    finally:
        first.end()
    second = Up(tmp_path / "data", "--backend", "sketch").start()
    try:
        assert second.job(done["id"])["status"] == "succeeded"
        second.until_completed(job_id, 6)
        assert second.send(signal.SIGINT) == 0
    finally:
        second.end()
    third = Up(tmp_path / "data", "--backend", "sketch").start()
    try:
        assert third.wait_for(job_id, seconds=120)["completed"] == 24
        with third.api() as api:
            assert "runner.lost" not in api.get(f"/v1/jobs/{job_id}/logs").text
            artifacts = api.get(f"/v1/jobs/{job_id}/artifacts").json()["items"]
            assert [a["item_index"] for a in artifacts] == list(range(24))
            assert len({a["seed"] for a in artifacts}) == 24
            link = api.get(f"/v1/jobs/{done['id']}/artifacts").json()["items"][0]["url"]
            assert api.get(link).status_code == 200
        assert {path: path.stat().st_mtime_ns for path in stored} == stored
        assert third.send(signal.SIGTERM) == 0
    finally:
        third.end()


def test_servers_that_are_given_are_used(tmp_path, empty_database_url, redis_db):
    given = {"DF_DATABASE_URL": empty_database_url, "DF_REDIS_URL": redis_db}
    more = {"DF_FAKE_RUNNER": "1", "CUDA_VISIBLE_DEVICES": "5,7"}
    up = Up(tmp_path / "data", "--slots", "2", environment={**given, **more}).start()
    try:
        assert not up.named("postgres") + up.named("redis")
        assert up.child("dreamforge_runner", "serve")
        runners = up.direct("dreamforge_runner", "serve")
        assert sorted(runner.environ()["CUDA_VISIBLE_DEVICES"] for runner in runners) == ["5", "7"]
        assert not (tmp_path / "data" / "postgres").exists()
        up.wait_for(up.post())
        for secret in (empty_database_url, redis_db):
            assert secret not in up.remarks()
    finally:
        up.end()


def test_a_database_that_is_not_there_yet_is_waited_for(tmp_path):
    nowhere = f"postgresql://u:hunter2@127.0.0.1:{free_port()}/x"
    up = Up(tmp_path / "data", "--backend", "sketch", environment={"DF_DATABASE_URL": nowhere})
    up.spawn()
    try:
        until(lambda: up.remarks().count("migrate: ended") >= 2, seconds=150, what="a second try")
        assert "DF_DATABASE_URL" in up.remarks()
        assert "hunter2" not in up.remarks()
        assert up.send(signal.SIGTERM) == 0
    finally:
        up.end()


def test_killed_up_leaves_nothing_for_long(tmp_path):
    up = Up(tmp_path / "data", "--backend", "sketch").start()
    children = up.children()
    assert len(children) >= 5
    up.send(signal.SIGKILL)
    until(lambda: all(gone(child) for child in children), seconds=30, what="the end of all children")
    again = Up(tmp_path / "data", "--backend", "sketch").start()
    again.wait_for(again.post())
    assert again.send(signal.SIGTERM) == 0
