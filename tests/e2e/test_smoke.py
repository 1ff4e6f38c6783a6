"""The seed's smoke test, word for word but for the port, and the stream as `curl -N` shows it."""

import json
import shutil
import subprocess
from typing import Any

import pytest

from tests.e2e import checks
from tests.e2e.client import Frame, events_of, parse_text
from tests.e2e.system import System

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")

#: Seed 004, section 7, step 6.
SMOKE = """\
curl -sS http://127.0.0.1:8001/v1/jobs \\
     -H 'Content-Type: application/json' \\
     -d '{"type":"generate","prompt":"an old-growth forest at dawn","width":1024,"height":1024,"steps":24,\
"guidance":7.0,"format":"png"}'
"""


def shell(command: str) -> str:
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def curl(system: System, path: str, *options: str) -> str:
    done = subprocess.run(
        ["curl", "-sS", *options, system.up.url + path], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def post(system: System) -> dict[str, Any]:
    job: dict[str, Any] = json.loads(shell(SMOKE.replace("http://127.0.0.1:8001", system.up.url)))
    return job


def test_the_smoke_test_of_the_seed(system):
    job = post(system)
    ended = system.client.wait(json.loads(curl(system, f"/v1/jobs/{job['id']}"))["id"])
    checks.whole(system, ended)
    (row,) = system.rows("SELECT key, seed FROM artifacts WHERE job_id = %s", job["id"])
    stamp = job["created_at"].partition(".")[0].replace("-", "").replace(":", "") + "Z"
    key = f"dreamforge/default/jobs/{job['id']}/generate/{stamp}_0_1024x1024_{row['seed']}.png"
    assert row["key"] == key
    assert (system.data / "objects" / key).read_bytes().startswith(b"\x89PNG")


def test_curl_sees_state_progress_artifact_and_end(system):
    job = post(system)
    frames = parse_text(curl(system, job["urls"]["events"], "-N"))
    assert [f.data["status"] for f in events_of(frames, "state")] == ["running", "succeeded"]
    progress = [f.data for f in events_of(frames, "progress")]
    assert {p["item_index"] for p in progress} == {0}
    assert [p["item_progress"] for p in progress] == sorted(p["item_progress"] for p in progress)
    assert progress[-1]["item_progress"] == progress[-1]["progress"] == 1
    (artifact,) = events_of(frames, "artifact")
    (listed,) = system.client.artifacts(job["id"])
    assert artifact.data.keys() >= listed.keys() - {"url", "url_expires_at"}
    assert all(artifact.data[name] == listed[name] for name in listed.keys() - {"url", "url_expires_at"})
    assert not artifact.data.keys() & {"url", "url_expires_at", "key"}
    assert [f.event for f in frames[-2:]] == ["state", "end"]


def test_curl_with_last_event_id_shows_exactly_the_rest(system):
    job = system.client.render(count=3)
    path = job["urls"]["events"]
    whole = parse_text(curl(system, path, "-N"))
    last = len(whole) - 1
    for seen in (0, 1, last // 3, last // 2, last - 1):
        assert parse_text(curl(system, path, "-N", "-H", f"Last-Event-ID: {seen}")) == whole[seen:]
        assert parse_text(curl(system, f"{path}?after={seen}", "-N")) == whole[seen:]
    headers = curl(system, path, "-N", "-i", "-H", f"Last-Event-ID: {last}")
    assert headers.startswith("HTTP/1.1 204 ")
    for wrong in (str(last + 1), "-1", "x", "1.0", "9" * 30):
        answer = curl(system, path, "-N", "-o", "/dev/null", "-w", "%{http_code}", "-H", f"Last-Event-ID: {wrong}")
        assert answer == "400", wrong


def test_a_stream_cut_in_the_middle_goes_on_where_it_was(system):
    job = system.client.post(count=6, width=1024, height=1024, steps=8)
    seen: list[Frame] = []
    while not seen or seen[-1].event != "end":
        connection = system.client.stream(job["id"], seen[-1].id if seen else None)
        for frame in connection:
            seen.append(frame)
            if frame.event == "artifact":
                break  # and drop the connection
        connection.close()
    live = [frame for frame in seen if frame.event != "progress"]
    replayed = [frame for frame in system.client.stream(job["id"]) if frame.event != "progress"]
    assert live == replayed


def test_an_unknown_job_is_404_before_the_stream_starts(system):
    path = "/v1/jobs/01a1fd6e-9c4f-75a0-92d8-aebb8c5f6838/progress/stream"
    answer = system.client.http.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "not_found"
