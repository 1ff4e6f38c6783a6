"""Every process is killed once in the middle of a batch: the batch ends whole, with nothing rendered twice."""

import signal
import time
from typing import Any

import pytest
import redis

from tests.e2e import checks
from tests.e2e.client import Frame
from tests.e2e.system import System

#: Big enough that a fault hits the middle of it, with each image its own piece of work.
BATCH: dict[str, Any] = {"count": 8, "width": 1536, "height": 1536, "steps": 40}


def half_done(system: System, **fields: Any) -> tuple[dict[str, Any], dict[str, int]]:
    """A batch with some images stored and some to come; those stored."""
    job = system.client.post(**{**BATCH, **fields})
    system.client.until_completed(job["id"], 2)
    return job, system.stored(job)


def ends_whole(system: System, job: dict[str, Any], before: dict[str, int], begun: float, what: str) -> list[Frame]:
    """Follow to the end as a client would; then every promise of a succeeded job holds."""
    seen = system.client.follow(job["id"])
    print(f"{what}: whole after {time.monotonic() - begun:.1f} s")
    system.client.until_ready()
    frames = checks.whole(system, system.client.wait(job["id"]))
    live = [frame for frame in seen if frame.id is not None]
    assert [frame.id for frame in live] == sorted({frame.id for frame in live if frame.id})
    replayed = {frame.id: frame for frame in frames}
    assert all(replayed[frame.id] == frame for frame in live), "a live event differs from its replay"
    missed = replayed.keys() - {frame.id for frame in live}
    assert {replayed[number].event for number in missed} <= {"progress"}
    now = system.stored(job)
    assert before == {name: now[name] for name in before}, "an image was written again"
    return frames


@pytest.mark.parametrize("victim", ["child", "runner", "worker", "api", "redis", "postgres"])
def test_kill_9(system, victim):
    job, before = half_done(system)
    process = system.process(victim)
    begun = time.monotonic()
    process.kill()
    ends_whole(system, job, before, begun, f"{victim} killed")
    assert system.client.render()["completed"] == 1, "the next job works"


def test_redis_wiped(system):
    job, before = half_done(system)
    begun = time.monotonic()
    with redis.Redis.from_url(system.redis_url) as wiped:
        wiped.flushall()
    ends_whole(system, job, before, begun, "redis wiped")


def test_a_killed_child_is_named_and_its_gpu_verdict_kept(system):
    job, _ = half_done(system)
    system.process("child").kill()
    ended = system.client.wait(job["id"])
    first, *_, last = checks.attempts(system, ended)
    assert (first["status"], first["error_code"]) == ("failed", "provider_error")
    assert first["gpu"]["source"] in {"none", "torch", "nvml"}
    assert first["gpu"]["child_discarded"] is True
    assert last["status"] == "succeeded"


def test_a_killed_child_of_sdxl(sdxl):
    job, before = half_done(sdxl, width=256, height=256, steps=60, count=5)
    begun = time.monotonic()
    sdxl.process("child").kill()
    ends_whole(sdxl, job, before, begun, "sdxl child killed")


def test_ctrl_c_then_up_again(tmp_path):
    data = tmp_path / "data"
    first = System(data, "--backend", "sketch").start()
    try:
        job, _ = half_done(first)
        assert first.up.send(signal.SIGINT) == 0
        before = first.stored(job)
        assert 2 <= len(before) < job["count"]
    finally:
        first.end()
    second = System(data, "--backend", "sketch").start()
    try:
        ends_whole(second, job, before, time.monotonic(), "up again")
    finally:
        second.end()
