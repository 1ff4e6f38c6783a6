"""The newest frames of one job, and what a reader at some place in them is to be sent next. Pure."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import NamedTuple

from dreamforge_api.progress.frames import Frame, without_superseded

#: Frames that are joined into one write.
BATCH = 256
_seq = attrgetter("seq")


class Chunk(NamedTuple):
    """Bytes to send, and where the reader stands after them. ``skipped`` frames were superseded."""

    data: bytes
    cursor: int
    skipped: int = 0


class Window:
    """Every event after ``floor`` up to ``last_seq``; bounded, so ``floor`` moves on."""

    def __init__(self, size: int, lag: int) -> None:
        self.size = size
        self._lag = lag
        self._frames: list[Frame] = []
        self._memo: tuple[int, int, Chunk] | None = None
        self.floor = 0
        self.last_seq = 0
        self.ended = False

    def start(self, frames: Sequence[Frame], *, complete: bool) -> None:
        """Begin with the newest frames of the job; ``complete`` says that no older ones exist."""
        if not complete and frames:
            self.floor = frames[0].seq - 1
        self.extend(frames)

    def extend(self, frames: Iterable[Frame]) -> None:
        for frame in frames:
            if frame.seq > self.last_seq:
                self._frames.append(frame)
                self.last_seq = frame.seq
                self.ended = self.ended or frame.terminal
        # Cut in larger pieces: moving a long list for every new frame would cost more than it saves.
        if len(self._frames) > self.size + self.size // 4:
            cut = len(self._frames) - self.size
            self.floor = self._frames[cut - 1].seq
            del self._frames[:cut]

    def next_chunk(self, cursor: int, live_from: int) -> Chunk | None:
        """What follows ``cursor``, or ``None`` when nothing does. ``cursor`` must not be before ``floor``.

        ``live_from`` is what was newest when the reader came: up to there is replay, which is gapless. After it, a
        reader that lags is spared superseded progress.
        """
        if cursor >= self.last_seq:
            return None
        if cursor >= live_from and self.last_seq - cursor > self._lag:
            return self._thinned(cursor)
        # Readers of a job mostly stand at the same place: what is joined for one is there for all.
        memo = self._memo
        if memo is not None and memo[0] == cursor and memo[1] == self.last_seq:
            return memo[2]
        begin = bisect_right(self._frames, cursor, key=_seq)
        frames = self._frames[begin : begin + BATCH]
        chunk = Chunk(b"".join([frame.data for frame in frames]), frames[-1].seq)
        self._memo = (cursor, self.last_seq, chunk)
        return chunk

    def _thinned(self, cursor: int) -> Chunk:
        waiting = self._frames[bisect_right(self._frames, cursor, key=_seq) :]
        kept = without_superseded(waiting)[:BATCH]
        upto = kept[-1].seq
        passed = bisect_right(waiting, upto, key=_seq)
        return Chunk(b"".join([frame.data for frame in kept]), upto, passed - len(kept))
