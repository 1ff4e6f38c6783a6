"""``serve`` on a real Redis: warm between jobs, alive after every fault, nothing lost on the way out."""

import contextlib
import re
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from redis import Redis

from dreamforge.errors import ErrorCode
from dreamforge.events import (
    ArtifactStored,
    AttemptFinished,
    AttemptStarted,
    Failure,
    GpuMeasured,
    ItemStarted,
    Outcome,
    Verdict,
)
from dreamforge.spec import Limits, RenderSpec
from dreamforge.storage.filesystem import FilesystemStore
from dreamforge.transport import names
from tests.integration.runner_kit import Ingest, Runner, make_spec, submit, wait_for
from tests.processes import gone


@pytest.fixture
def ingest(redis_db: str) -> Iterator[Ingest]:
    consumer = Ingest(redis_db)
    yield consumer
    consumer.stop()


@pytest.fixture
def runner(tmp_path: Path, redis_db: str) -> Iterator[Runner]:
    with Runner(tmp_path / "r", "serve", redis_url=redis_db).wait_ready() as serving:
        yield serving
        assert serving.stop() == 0


def run_job(redis_url: str, ingest: Ingest, spec: RenderSpec) -> AttemptFinished:
    submit(redis_url, spec)
    return finished(ingest, spec)


def finished(ingest: Ingest, spec: RenderSpec) -> AttemptFinished:
    wait_for(lambda: ingest.of(spec.job_id, AttemptFinished), what=f"end of {spec.params.prompt}")
    return ingest.of(spec.job_id, AttemptFinished)[-1]


def failure_of(end: AttemptFinished) -> Failure:
    assert end.failure is not None
    return end.failure


def child_of(ingest: Ingest, spec: RenderSpec) -> int:
    return int(re.findall(r"pid=(\d+)", ingest.logs(spec.job_id)["faulty.pid"])[0])


def is_idle(redis_url: str, spec: RenderSpec) -> bool:
    client = Redis.from_url(redis_url)
    left = client.exists(names.lease_key(spec.job_id)) or client.exists(f"rq:job:{names.render_rq_id(spec.job_id)}")
    client.close()
    return not left


def test_the_second_job_reuses_the_loaded_model_in_the_same_child(runner: Runner, redis_db: str, ingest: Ingest):
    first, second = make_spec(params={"count": 3}), make_spec()
    assert run_job(redis_db, ingest, first).items_done == 3
    assert run_job(redis_db, ingest, second).outcome is Outcome.SUCCEEDED
    assert child_of(ingest, first) == child_of(ingest, second)
    assert "loads=1" in ingest.logs(second.job_id)["faulty.pid"]
    assert "model.loaded" in ingest.logs(first.job_id)
    assert "model.reused" in ingest.logs(second.job_id)


def peak_mib(pid: int) -> float:
    """The most memory the process ever had resident, by the kernel's own count."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the kernel tells no peak here: no /proc")
def test_a_hundred_images_take_no_more_memory_than_twenty(runner: Runner, redis_db: str, ingest: Ingest):
    size = {"width": 768, "height": 768, "steps": 1}  # 1.7 MiB each: kept, a hundred would be 170
    few, many = make_spec(params={**size, "count": 20}), make_spec(params={**size, "count": 100})
    assert run_job(redis_db, ingest, few).items_done == 20
    pids = (runner.process.pid, child_of(ingest, few))
    before = [peak_mib(pid) for pid in pids]
    assert run_job(redis_db, ingest, many).items_done == 100
    assert child_of(ingest, many) == pids[1]
    grown = [peak_mib(pid) - told for pid, told in zip(pids, before, strict=True)]
    assert max(grown) < 40, grown


def test_events_tell_the_whole_story_in_order(runner: Runner, redis_db: str, ingest: Ingest):
    spec = make_spec(params={"count": 2})
    run_job(redis_db, ingest, spec)
    events = ingest.events(spec.job_id)
    assert isinstance(events[0], AttemptStarted)
    assert isinstance(events[-1], AttemptFinished)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    seeds = {event.item_index: event.item_seed for event in ingest.of(spec.job_id, ItemStarted)}
    stored = ingest.of(spec.job_id, ArtifactStored)
    assert {event.item_index: event.item_seed for event in stored} == seeds
    assert len(ingest.of(spec.job_id, GpuMeasured)) == 1
    store = FilesystemStore(runner.home / ".dreamforge" / "objects", None)
    heads = [store.head(event.key) for event in stored]
    assert [head and head.sha256 for head in heads] == [event.sha256 for event in stored]
    wait_for(lambda: is_idle(redis_db, spec), what="lease and RQ record gone")
    assert runner.spools == []


@pytest.mark.parametrize(
    ("prompt", "code"),
    [
        ("killed", ErrorCode.PROVIDER_ERROR),
        ("oom", ErrorCode.GPU_OOM),
        ("raises", ErrorCode.PROVIDER_ERROR),
        ("decode", ErrorCode.GPU_FAULT),
    ],
)
def test_after_a_broken_child_the_next_job_has_a_fresh_one(
    runner: Runner, redis_db: str, ingest: Ingest, prompt: str, code: ErrorCode
):
    before, broken, after = make_spec(), make_spec(f"{prompt} a very secret prompt", params={"count": 2}), make_spec()
    run_job(redis_db, ingest, before)
    end = run_job(redis_db, ingest, broken)
    assert (end.outcome, failure_of(end).code) == (Outcome.FAILED, code)
    assert ingest.of(broken.job_id, GpuMeasured)[0].child_discarded
    assert run_job(redis_db, ingest, after).outcome is Outcome.SUCCEEDED
    assert child_of(ingest, before) == child_of(ingest, broken) != child_of(ingest, after)
    assert "secret prompt" not in runner.log
    assert "secret prompt" not in end.model_dump_json()


@pytest.mark.parametrize("prompt", ["killed", "oom", "hangs"])
def test_a_child_in_place_of_a_discarded_one_is_warm_before_a_job_asks(
    runner: Runner, redis_db: str, ingest: Ingest, prompt: str
):
    broken, after = make_spec(prompt, limits=Limits(item_timeout_seconds=0.6, grace_seconds=0.3)), make_spec()
    submit(redis_db, broken)
    assert finished(ingest, broken).outcome is Outcome.FAILED
    wait_for(lambda: runner.log.count("model is warm") == 1, what="the new child is warm")
    assert run_job(redis_db, ingest, after).outcome is Outcome.SUCCEEDED
    assert child_of(ingest, after) != child_of(ingest, broken)
    assert "model.reused" in ingest.logs(after.job_id)
    assert runner.log.count("render child started") == 2


def test_a_child_that_dies_between_jobs_is_replaced_by_a_warm_one(runner: Runner, redis_db: str, ingest: Ingest):
    before, after = make_spec(), make_spec()
    run_job(redis_db, ingest, before)
    psutil.Process(child_of(ingest, before)).kill()
    wait_for(lambda: "model is warm" in runner.log)
    run_job(redis_db, ingest, after)
    assert "model.reused" in ingest.logs(after.job_id)


def test_a_model_that_kills_its_child_while_warming_is_not_tried_for_ever(
    runner: Runner, redis_db: str, ingest: Ingest
):
    once = make_spec("killed", model_id="deadly-the-second-time")
    run_job(redis_db, ingest, once)
    wait_for(lambda: "render child ended while warming up" in runner.log)
    assert run_job(redis_db, ingest, make_spec()).outcome is Outcome.SUCCEEDED
    # The first, the one that died while warming up, and the one of the job after: nothing in between.
    assert runner.log.count("render child started") == 3


def test_a_killed_child_is_named_with_its_signal(runner: Runner, redis_db: str, ingest: Ingest):
    end = run_job(redis_db, ingest, make_spec("killed"))
    assert "SIGKILL" in failure_of(end).message
    assert failure_of(end).item_index == 0
    assert end.exit_code == 21


def test_a_missing_model_keeps_the_child(runner: Runner, redis_db: str, ingest: Ingest):
    missing, after = make_spec(model_id="absent"), make_spec()
    end = run_job(redis_db, ingest, missing)
    assert (failure_of(end).code, end.exit_code) == (ErrorCode.MODEL_MISSING, 11)
    assert not ingest.of(missing.job_id, GpuMeasured)[0].child_discarded
    assert run_job(redis_db, ingest, after).outcome is Outcome.SUCCEEDED


def test_an_unknown_kind_of_model_is_refused(runner: Runner, redis_db: str, ingest: Ingest):
    end = run_job(redis_db, ingest, make_spec(kind="flux"))
    assert (failure_of(end).code, end.exit_code) == (ErrorCode.INVALID_INPUT, 10)


@pytest.mark.parametrize("prompt", ["hangs", "deaf"])
def test_a_hang_is_an_item_timeout(runner: Runner, redis_db: str, ingest: Ingest, prompt: str):
    limits = Limits(item_timeout_seconds=8, grace_seconds=0.3)
    hanging, after = make_spec(prompt, limits=limits, params={"count": 2}), make_spec()
    end = run_job(redis_db, ingest, hanging)
    assert (failure_of(end).code, failure_of(end).item_index, end.exit_code) == (ErrorCode.ITEM_TIMEOUT, 1, 31)
    assert [event.item_index for event in ingest.of(hanging.job_id, ArtifactStored)] == [0]
    assert gone(child_of(ingest, hanging))
    assert run_job(redis_db, ingest, after).outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize("prompt", ["slow", "hangs"])
def test_cancel_in_the_middle_of_an_item(runner: Runner, redis_db: str, ingest: Ingest, prompt: str):
    spec = make_spec(prompt, params={"count": 2})
    submit(redis_db, spec)
    wait_for(lambda: len(ingest.of(spec.job_id, ItemStarted)) == 2)
    Redis.from_url(redis_db).set(names.cancel_key(spec.job_id), "1")
    end = finished(ingest, spec)
    assert (end.outcome, end.exit_code, end.items_done) == (Outcome.CANCELED, 30, 1)
    assert ingest.of(spec.job_id, GpuMeasured)[0].child_discarded == (prompt == "hangs")
    assert run_job(redis_db, ingest, make_spec()).outcome is Outcome.SUCCEEDED


def test_a_job_canceled_before_it_began_renders_nothing(runner: Runner, redis_db: str, ingest: Ingest):
    spec = make_spec()
    Redis.from_url(redis_db).set(names.cancel_key(spec.job_id), "1")
    assert run_job(redis_db, ingest, spec).outcome is Outcome.CANCELED
    assert ingest.of(spec.job_id, ItemStarted) == []
    (verdict,) = ingest.of(spec.job_id, GpuMeasured)
    assert (verdict.source, verdict.clean) == ("none", None)


def test_a_job_that_another_attempt_has_is_left_alone(runner: Runner, redis_db: str, ingest: Ingest):
    taken, free = make_spec(), make_spec()
    Redis.from_url(redis_db).set(names.lease_key(taken.job_id), "run-other", ex=60)
    submit(redis_db, taken)
    run_job(redis_db, ingest, free)
    assert ingest.events(taken.job_id) == []


def test_a_delivery_that_is_no_spec_is_dropped(runner: Runner, redis_db: str, ingest: Ingest):
    broken = make_spec("secret prompt").model_copy(update={"user": None})
    with warnings.catch_warnings(action="ignore"):  # pydantic notices, as the runner should
        submit(redis_db, broken)
    assert run_job(redis_db, ingest, make_spec()).outcome is Outcome.SUCCEEDED
    assert "is no render spec" in runner.log
    assert "secret prompt" not in runner.log


def test_a_refused_attempt_stops_its_work_quietly(runner: Runner, redis_db: str, ingest: Ingest):
    spec = make_spec("slow")
    ingest.sink.refusal = Verdict.REFUSED_FENCED
    submit(redis_db, spec)
    wait_for(lambda: "events are refused" in runner.log)
    wait_for(lambda: is_idle(redis_db, spec), what="lease gone")
    assert runner.spools == []
    ingest.sink.refusal = None
    assert run_job(redis_db, ingest, make_spec()).outcome is Outcome.SUCCEEDED


@pytest.fixture
def start_runner(tmp_path: Path, redis_db: str) -> Iterator[Callable[[], Runner]]:
    """Starts runners that share a folder; none outlives the test."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(Runner(tmp_path / "r", "serve", redis_url=redis_db))


def test_sigterm_stops_the_job_and_the_next_start_sends_what_was_left(
    start_runner: Callable[[], Runner], redis_db: str, ingest: Ingest
):
    serving, spec = start_runner().wait_ready(), make_spec("slow")
    submit(redis_db, spec)
    wait_for(lambda: "faulty.pid" in ingest.logs(spec.job_id))
    ingest.paused.set()
    child = child_of(ingest, spec)
    assert serving.stop() == 0
    assert gone(child)
    assert len(serving.spools) == 1
    ingest.paused.clear()
    again = start_runner()
    end = finished(ingest, spec)
    assert (end.outcome, end.exit_code) == (Outcome.STOPPED, 30)
    assert len(ingest.attempts(spec.job_id)) == 1
    wait_for(lambda: again.spools == [])
    assert again.stop() == 0


def test_a_killed_runner_takes_its_child_along_and_the_next_one_ends_its_attempt(
    start_runner: Callable[[], Runner], redis_db: str, ingest: Ingest
):
    serving, spec = start_runner().wait_ready(), make_spec("slow", params={"count": 2})
    submit(redis_db, spec)
    wait_for(lambda: ingest.of(spec.job_id, ArtifactStored) and len(ingest.of(spec.job_id, ItemStarted)) == 2)
    child = child_of(ingest, spec)
    serving.stop(signal.SIGKILL)
    wait_for(lambda: gone(child))
    again = start_runner()
    end = finished(ingest, spec)
    assert (end.outcome, end.items_done) == (Outcome.FAILED, 1)
    assert end.failure is not None
    assert end.failure.code is ErrorCode.RUNNER_LOST
    # The job comes again: what is stored is reported, not rendered again, and a drawn seed is kept.
    seeds = {event.item_index: event.item_seed for event in ingest.of(spec.job_id, ItemStarted)}
    Redis.from_url(redis_db).delete(names.lease_key(spec.job_id), f"rq:job:{names.render_rq_id(spec.job_id)}")
    submit(redis_db, make_spec("fine", job_id=spec.job_id, params={"count": 2}, seeds=seeds))
    wait_for(lambda: len(ingest.of(spec.job_id, AttemptFinished)) == 2)
    events = ingest.sink.committed(ingest.attempts(spec.job_id)[1])
    assert [event.item_index for event in events if isinstance(event, ItemStarted)] == [1]
    assert {e.item_index: e.item_seed for e in events if isinstance(e, ArtifactStored)} == seeds
    assert again.stop() == 0


def test_jobs_for_the_loaded_model_go_first(runner: Runner, redis_db: str, ingest: Ingest):
    busy = make_spec("slow", model_id="a")
    submit(redis_db, busy)
    wait_for(lambda: ingest.of(busy.job_id, ItemStarted), what="the runner is busy")
    specs = [make_spec(model_id=model) for model in ("b", "a", "b", "a")]
    for spec in specs:
        submit(redis_db, spec)
    client = Redis.from_url(redis_db)
    client.set(names.cancel_key(busy.job_id), "1")
    client.close()
    for spec in specs:
        wait_for(lambda job_id=spec.job_id: ingest.of(job_id, AttemptFinished))  # type: ignore[misc]  # lambda default
    begun = sorted(specs, key=lambda spec: ingest.of(spec.job_id, AttemptStarted)[0].ts)
    assert [spec.model.id for spec in begun] == ["a", "a", "b", "b"]
    assert [begun[0], begun[2]] == [specs[1], specs[0]]
