"""What a reader is sent next: gapless in replay, thinned when live and slow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamforge_api.progress.frames import Frame, without_superseded
from dreamforge_api.progress.window import BATCH, Window


def frame(seq: int, item: int | None = None, *, terminal: bool = False) -> Frame:
    return Frame(seq, b"<%d>" % seq, item, terminal)


def seqs(data: bytes) -> list[int]:
    return [int(part) for part in data.decode().strip("<>").split("><")] if data else []


def read_all(window: Window, cursor: int, live_from: int) -> tuple[list[int], int]:
    seen: list[int] = []
    skipped = 0
    while chunk := window.next_chunk(cursor, live_from):
        assert chunk.cursor > cursor
        cursor = chunk.cursor
        seen += seqs(chunk.data)
        skipped += chunk.skipped
    return seen, skipped


_FRAMES = st.lists(st.none() | st.integers(0, 3), max_size=600)


@given(_FRAMES, st.integers(0, 600))
def test_a_replay_is_gapless(items: list[int | None], after: int) -> None:
    window = Window(size=1000, lag=10)
    window.start([frame(n, item) for n, item in enumerate(items, 1)], complete=True)
    seen, skipped = read_all(window, after, live_from=window.last_seq)
    assert seen == list(range(after + 1, len(items) + 1))
    assert skipped == 0


@given(_FRAMES, st.integers(10, 100))
def test_a_slow_reader_misses_superseded_progress_only(items: list[int | None], lag: int) -> None:
    window = Window(size=1000, lag=lag)
    window.extend(frame(n, item) for n, item in enumerate(items, 1))
    seen, skipped = read_all(window, 0, live_from=0)
    assert seen == sorted(seen)
    assert len(seen) + skipped == len(items)
    missed = set(range(1, len(items) + 1)) - set(seen)
    for seq in missed:
        item = items[seq - 1]
        assert item is not None, "only progress may be missed"
        assert any(later > seq and items[later - 1] == item for later in seen), "and only when newer is sent"
    if len(items) <= lag:
        assert not missed


@given(st.lists(st.integers(1, 40), max_size=30), st.integers(50, 80))
def test_the_window_keeps_the_newest_and_knows_where_it_begins(bursts: list[int], size: int) -> None:
    window = Window(size=size, lag=10_000)
    seq = 0
    for burst in bursts:
        window.extend(frame(n) for n in range(seq + 1, seq + burst + 1))
        seq += burst
    assert window.last_seq == seq
    assert seq - window.floor >= min(seq, size)
    seen, _ = read_all(window, window.floor, live_from=seq)
    assert seen == list(range(window.floor + 1, seq + 1))


def test_a_window_that_starts_in_the_middle_says_so() -> None:
    window = Window(size=100, lag=10)
    window.start([frame(n) for n in range(51, 151)], complete=False)
    assert (window.floor, window.last_seq) == (50, 150)


def test_frames_come_once_even_when_they_are_read_twice() -> None:
    window = Window(size=100, lag=10)
    window.extend([frame(1), frame(2)])
    window.extend([frame(2), frame(3, terminal=True)])
    assert seqs(window.next_chunk(0, 3).data) == [1, 2, 3]  # type: ignore[union-attr]  # there is a chunk
    assert window.ended


def test_readers_at_one_place_share_the_same_bytes() -> None:
    window = Window(size=1000, lag=1000)
    window.extend(frame(n) for n in range(1, BATCH + 50))
    one, two = window.next_chunk(0, 0), window.next_chunk(0, 0)
    assert one is two
    assert one is not None
    assert one.cursor == BATCH


@pytest.mark.parametrize("cursor", [3, 4])
def test_nothing_follows_the_last_event(cursor: int) -> None:
    window = Window(size=100, lag=10)
    window.extend([frame(1), frame(2), frame(3)])
    assert window.next_chunk(cursor, 0) is None


def test_superseded_progress_is_that_with_newer_of_the_same_item() -> None:
    given_frames = [frame(1, 0), frame(2), frame(3, 1), frame(4, 0), frame(5)]
    assert [kept.seq for kept in without_superseded(given_frames)] == [2, 3, 4, 5]
