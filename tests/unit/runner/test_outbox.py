"""The outbox: every event safe once and in order, whatever the transport does."""

from pathlib import Path
from typing import Any

import pytest

from dreamforge.errors import ErrorCode
from dreamforge.events import (
    ArtifactStored,
    AttemptFinished,
    AttemptStarted,
    GpuMeasured,
    ItemProgressed,
    ItemStarted,
    Outcome,
    Stage,
    Verdict,
)
from dreamforge.spec import ImageFormat
from dreamforge_runner.outbox import BATCH_EVENTS, RESEND_SECONDS, SLICE_SECONDS, Outbox
from tests.unit.runner.events_kit import ATTEMPT, Bench, load_spool


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def start(outbox: Outbox) -> None:
    outbox.emit(AttemptStarted, backend="sketch", runner="r")


def finish(outbox: Outbox) -> None:
    outbox.emit(AttemptFinished, outcome=Outcome.SUCCEEDED, exit_code=0, items_done=0)


def store(outbox: Outbox, index: int = 0) -> None:
    fields: dict[str, Any] = {"width": 8, "height": 8, "item_seed": 1, "size_bytes": 1, "metadata": {}}
    outbox.emit(ArtifactStored, item_index=index, key="k", format=ImageFormat.PNG, sha256="0" * 64, **fields)


def test_a_finished_attempt_leaves_nothing_behind(bench: Bench):
    start(bench.outbox)
    bench.outbox.log("c", "a line")
    store(bench.outbox)
    finish(bench.outbox)
    bench.pass_time(5)
    assert bench.committed == [1, 2, 3, 4]
    assert bench.outbox.drained
    assert not bench.spool.path.exists()


def test_urgent_events_leave_at_once_and_others_within_a_slice(bench: Bench):
    start(bench.outbox)
    bench.outbox.turn()
    assert len(bench.sink.batches) == 1
    bench.outbox.log("c", "a line")
    bench.outbox.turn()
    assert len(bench.sink.batches) == 1
    bench.clock.now += SLICE_SECONDS
    bench.outbox.turn()
    assert len(bench.sink.batches) == 2
    store(bench.outbox)
    bench.outbox.turn()
    assert len(bench.sink.batches) == 3


def test_batches_are_bounded_and_chained(bench: Bench):
    for number in range(BATCH_EVENTS * 2 + 1):
        bench.outbox.log("c", f"line {number}")
    bench.pass_time(1)
    sizes = [len(batch.events) for batch in bench.sink.batches]
    assert sizes == [BATCH_EVENTS, BATCH_EVENTS, 1]
    assert [batch.prev_seq for batch in bench.sink.batches] == [0, BATCH_EVENTS, 2 * BATCH_EVENTS]


def test_progress_is_at_most_four_a_second_and_ends_with_the_newest(bench: Bench):
    for step in range(1, 101):  # a hundred steps in two seconds
        bench.outbox.progress(0, Stage.DENOISING, step, 100)
        bench.pass_time(0.02)
    bench.pass_time(1)
    sent = [event for event in bench.sink.committed(ATTEMPT) if isinstance(event, ItemProgressed)]
    assert 7 <= len(sent) <= 10
    assert sent[-1].step_index == 100
    assert [event.step_index for event in sent] == sorted(event.step_index for event in sent)


def test_no_progress_of_an_item_follows_its_artifact_or_the_end(bench: Bench):
    bench.outbox.progress(0, Stage.DENOISING, 1, 9)
    bench.outbox.progress(0, Stage.STORING, 9, 9)
    store(bench.outbox)
    bench.outbox.progress(1, Stage.DENOISING, 1, 9)
    bench.outbox.progress(1, Stage.DENOISING, 2, 9)
    finish(bench.outbox)
    bench.pass_time(5)
    kinds = [type(event) for event in bench.sink.committed(ATTEMPT)]
    assert kinds == [ItemProgressed, ArtifactStored, ItemProgressed, AttemptFinished]


def test_nothing_is_lost_while_the_transport_is_down(bench: Bench):
    start(bench.outbox)
    bench.sink.down = True
    bench.pass_time(60)
    for index in range(20):
        store(bench.outbox, index)
    finish(bench.outbox)
    bench.pass_time(300)
    assert not bench.outbox.drained
    bench.sink.down = False
    bench.pass_time(10)
    assert bench.committed == list(range(1, 23))
    assert bench.outbox.drained


def test_batches_that_the_transport_forgot_are_sent_again(bench: Bench):
    start(bench.outbox)
    bench.pass_time(1)
    bench.sink.losing = True
    store(bench.outbox)
    bench.pass_time(1)
    bench.sink.losing = False
    store(bench.outbox, 1)
    finish(bench.outbox)
    bench.pass_time(RESEND_SECONDS + 2)
    assert bench.committed == [1, 2, 3, 4]
    assert bench.outbox.drained


def test_a_wiped_transport_gets_what_is_not_known_to_be_safe_and_nobody_gets_it_twice(bench: Bench):
    start(bench.outbox)
    store(bench.outbox)
    bench.outbox.turn()
    bench.sink.wipe()  # committed, but the ack is gone before it was read
    bench.clock.now += 0.1
    finish(bench.outbox)
    bench.sink.losing = True
    bench.outbox.turn()
    bench.sink.losing = False
    bench.pass_time(RESEND_SECONDS * 3)
    assert bench.committed == [1, 2, 3]
    assert bench.outbox.drained


def test_a_gap_is_filled_sooner_than_silence(bench: Bench):
    start(bench.outbox)
    bench.pass_time(1)
    bench.sink.losing = True
    store(bench.outbox)
    bench.outbox.turn()
    bench.sink.losing = False
    store(bench.outbox, 1)
    bench.pass_time(RESEND_SECONDS / 2)
    assert bench.committed == [1, 2, 3]


def test_events_dropped_from_a_full_spool_are_no_gap(tmp_path: Path):
    bench = Bench(tmp_path, max_bytes=10_000)
    start(bench.outbox)
    bench.pass_time(1)
    bench.sink.down = True
    for step in range(500):
        bench.outbox.progress(0, Stage.DENOISING, step, 500)
        bench.pass_time(0.3, step=0.3)
    store(bench.outbox)
    finish(bench.outbox)
    bench.sink.down = False
    bench.pass_time(20)
    assert bench.spool.dropped > 0
    assert bench.outbox.drained
    kinds = [type(event) for event in bench.sink.committed(ATTEMPT)]
    assert kinds[-2:] == [ArtifactStored, AttemptFinished]


@pytest.mark.parametrize("verdict", [verdict for verdict in Verdict if verdict.refused])
def test_a_refusal_drops_the_spool_and_is_passed_on(bench: Bench, verdict: Verdict):
    bench.sink.refusal = verdict
    start(bench.outbox)
    bench.pass_time(2)
    assert bench.refusals == [verdict]
    assert bench.outbox.drained
    assert not bench.spool.path.exists()
    store(bench.outbox)  # the attempt may still be winding down: nobody hears it, nothing is written
    assert not bench.spool.path.exists()
    sent = len(bench.sink.batches)
    nothing = dict.fromkeys(("start_mib", "peak_mib", "end_mib", "clean"))
    bench.outbox.emit(GpuMeasured, source="none", child_discarded=True, **nothing)
    assert [type(event) for batch in bench.sink.batches[sent:] for event in batch.events] == [GpuMeasured]


def test_a_leftover_without_an_end_gets_one_with_its_count(bench: Bench, tmp_path: Path):
    start(bench.outbox)
    bench.outbox.emit(ItemStarted, item_index=0, item_seed=9)
    store(bench.outbox)
    bench.pass_time(1)
    bench.spool.close()
    loaded = load_spool(bench.spool.path)
    later = Bench(tmp_path, spool=loaded)
    later.sink = bench.sink
    later.outbox = Outbox(loaded, bench.sink, clock=later.clock)
    later.outbox.abandon_as_lost()
    later.outbox.abandon_as_lost()
    later.pass_time(5)
    assert later.outbox.drained
    end = bench.sink.committed(ATTEMPT)[-1]
    assert isinstance(end, AttemptFinished)
    assert (end.outcome, end.exit_code, end.items_done) == (Outcome.FAILED, 1, 1)
    assert end.failure is not None
    assert end.failure.code is ErrorCode.RUNNER_LOST
    assert bench.committed == [1, 2, 3, 4, 5]
