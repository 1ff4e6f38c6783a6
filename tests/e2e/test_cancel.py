"""Cancel: at once while queued, at a step boundary while running, and never a second time."""

import time
from typing import Any

import pytest

from tests.e2e import checks
from tests.e2e.client import TERMINAL
from tests.e2e.system import System, sha256

#: What the contract allows a running job's cancel at the very most, in seconds.
BOUND = 12


def cancel(system: System, job: dict[str, Any], status: int = 202) -> dict[str, Any]:
    answer = system.client.cancel(job["id"])
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_queued_job_ends_at_once(system):
    running = system.client.post(count=100, width=1024, height=1024)
    queued = system.client.post()
    answer = cancel(system, queued)
    assert answer["cancel_requested_at"] is not None
    ended = system.client.wait(queued["id"], "canceled", seconds=BOUND)
    assert ended["completed"] == 0
    checks.history(system, ended, "canceled")
    assert system.client.artifacts(queued["id"]) == []
    assert not system.stored(queued)
    cancel(system, running)
    system.client.wait(running["id"], "canceled", seconds=BOUND)


@pytest.mark.parametrize("kind", ["system", "sdxl"])
def test_a_running_job_stops_between_two_steps_and_keeps_what_it_has(request, kind):
    running: System = request.getfixturevalue(kind)
    running.client.until_ready()
    size = {"width": 256, "height": 256} if kind == "sdxl" else {"width": 1536, "height": 1536}
    job = running.client.post(count=20, steps=100, **size)
    running.client.until_completed(job["id"], 1)
    child = running.process("child").pid
    begun = time.monotonic()
    cancel(running, job)
    ended = running.client.wait(job["id"], "canceled", seconds=BOUND)
    print(f"{kind}: canceled after {time.monotonic() - begun:.2f} s with {ended['completed']} of 20 images")
    assert 1 <= ended["completed"] < 20
    assert ended["error"] is None
    checks.history(running, ended, "canceled")
    checks.attempts(running, ended)
    kept = running.client.artifacts(job["id"])
    assert len(kept) == ended["completed"]
    for artifact in kept:
        assert sha256(running.client.download(artifact)) == artifact["sha256"]
    assert running.process("child").pid == child, "a child that obeys is kept warm"
    assert running.client.render()["completed"] == 1


def test_cancel_is_idempotent(system):
    job = system.client.post(count=100, width=1024, height=1024)
    first = cancel(system, job)
    again = system.client.cancel(job["id"])
    assert again.status_code in (200, 202)
    assert again.json()["cancel_requested_at"] == first["cancel_requested_at"]
    ended = system.client.wait(job["id"], "canceled", seconds=BOUND)
    assert ended["status"] in TERMINAL
    assert cancel(system, job, 200) == ended


def test_a_finished_job_stays_as_it_is(system):
    job = system.client.render()
    assert cancel(system, job, 200) == job
    assert system.client.job(job["id"]) == job


def test_cancel_of_an_unknown_job_is_404(system):
    assert system.client.cancel("01a1fd6e-9c4f-75a0-92d8-aebb8c5f6838").status_code == 404
