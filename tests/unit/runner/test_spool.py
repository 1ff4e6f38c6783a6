"""The spool: bounded, readable after a crash, and picky about what it drops."""

import errno
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest

from dreamforge.events import (
    ArtifactStored,
    AttemptFinished,
    AttemptStarted,
    ItemProgressed,
    ItemStarted,
    Level,
    LogWritten,
    Outcome,
    RunnerEvent,
    Stage,
)
from dreamforge.spec import ImageFormat
from dreamforge_runner.spool import Spool
from dreamforge_runner.spool_home import SpoolHome
from tests.unit.runner.events_kit import load_spool, make_spool

EventT = TypeVar("EventT", bound=RunnerEvent)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
FULL_DISK = Path("/dev/full")


def raise_disk_full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def event(seq: int, kind: type[EventT], **fields: Any) -> EventT:
    return kind(seq=seq, ts=NOW, **fields)


def progress(seq: int) -> RunnerEvent:
    return event(seq, ItemProgressed, item_index=0, stage=Stage.DENOISING, step_index=seq, steps_total=99)


def artifact(seq: int) -> RunnerEvent:
    return event(
        seq,
        ArtifactStored,
        item_index=seq,
        key="k",
        format=ImageFormat.PNG,
        width=8,
        height=8,
        item_seed=1,
        size_bytes=1,
        sha256="0" * 64,
        metadata={"prompt": "x\ny\u2028z"},
    )


def test_events_come_back_in_order_after_a_crash(tmp_path: Path):
    spool = make_spool(tmp_path)
    events = [event(1, AttemptStarted, backend="sketch", runner="r"), progress(2), artifact(3)]
    for one in events:
        spool.append(one)
    loaded = load_spool(spool.path)
    assert loaded.after(0, 100) == events
    assert (loaded.last_seq, loaded.stored, loaded.finished) == (3, 1, False)
    assert loaded.header == spool.header


def test_a_torn_last_line_costs_only_itself(tmp_path: Path):
    spool = make_spool(tmp_path)
    spool.append(artifact(1))
    spool.append(artifact(2))
    spool.close()
    whole = spool.path.read_bytes()
    spool.path.write_bytes(whole[:-40])
    loaded = load_spool(spool.path)
    assert [one.seq for one in loaded.after(0, 9)] == [1]
    loaded.append(artifact(2))
    again = load_spool(spool.path)
    assert [one.seq for one in again.after(0, 9)] == [1, 2]


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b"not json\n"])
def test_a_file_that_is_no_spool_is_none(tmp_path: Path, content: bytes):
    path = tmp_path / "x.ndjson"
    path.write_bytes(content)
    assert Spool.load(path) is None


def test_a_full_spool_drops_the_oldest_progress_and_nothing_else(tmp_path: Path):
    spool = make_spool(tmp_path, max_bytes=20_000)
    spool.append(event(1, AttemptStarted, backend="sketch", runner="r"))
    for seq in range(2, 1000):
        special = {100: artifact(100), 200: event(200, ItemStarted, item_index=1, item_seed=5)}
        spool.append(special.get(seq) or progress(seq))
    spool.append(event(1000, AttemptFinished, outcome=Outcome.SUCCEEDED, exit_code=0, items_done=1))
    kept = [one.seq for one in spool.after(0, 5000)]
    assert {1, 100, 200, 1000} <= set(kept)
    newest = [seq for seq in kept if seq > 200]
    assert newest == list(range(newest[0], 1001)), "only the oldest progress is gone"
    assert spool.dropped == 1000 - len(kept)
    assert spool.path.stat().st_size <= 20_000
    loaded = load_spool(spool.path)
    assert set(kept) <= {one.seq for one in loaded.after(0, 5000)}


def test_log_lines_go_only_when_no_progress_is_left(tmp_path: Path):
    spool = make_spool(tmp_path, max_bytes=20_000)
    for seq in range(1, 200):
        spool.append(event(seq, LogWritten, level=Level.INFO, code="c", message="m" * 100))
        assert spool.path.stat().st_size <= 20_000
    kept = [one.seq for one in spool.after(0, 500)]
    assert kept == list(range(kept[0], 200))
    assert kept[0] > 1


def test_what_was_trimmed_is_not_forgotten(tmp_path: Path):
    """A spool that is trimmed to nothing still knows the next number and how many items are stored."""
    spool = make_spool(tmp_path, max_bytes=2_000)
    for seq in range(1, 21):
        spool.append(artifact(seq))
        spool.trim(seq)
    assert spool.after(0, 10) == []
    loaded = load_spool(spool.path)
    assert (loaded.last_seq, loaded.stored) == (20, 20)


def test_a_disk_that_can_not_be_written_costs_no_event(tmp_path: Path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    spool = make_spool(blocked)
    spool.append(artifact(1))
    assert [one.seq for one in spool.after(0, 9)] == [1]
    spool.remove()


@pytest.mark.skipif(not FULL_DISK.exists(), reason="this system has no /dev/full")
def test_a_disk_that_fills_up_costs_no_event(tmp_path: Path):
    """What is refused to a write is refused to the close after it as well."""
    spool = make_spool(tmp_path)
    spool.close()
    spool._file = FULL_DISK.open("ab")
    spool.append(artifact(1))
    spool.append(artifact(2))
    assert [one.seq for one in spool.after(0, 9)] == [1, 2]


@pytest.mark.skipif(not FULL_DISK.exists(), reason="this system has no /dev/full")
def test_a_spool_on_a_full_disk_can_be_removed(tmp_path: Path):
    spool = make_spool(tmp_path)
    spool.close()
    spool._file = FULL_DISK.open("ab")
    spool._file.write(b"not flushed yet")
    spool.remove()
    assert not spool.path.exists()


def test_half_a_rewrite_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.fsync", raise_disk_full)
    make_spool(tmp_path).append(artifact(1))
    assert list(tmp_path.iterdir()) == []


def test_without_a_folder_of_its_own_a_process_leaves_others_spools_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    left = make_spool(tmp_path / "runner-gone")
    left.append(artifact(1))
    left.close()
    monkeypatch.setattr(Path, "mkdir", raise_disk_full)
    home = SpoolHome(tmp_path)
    assert home.leftovers() == []
    assert left.path.exists()
