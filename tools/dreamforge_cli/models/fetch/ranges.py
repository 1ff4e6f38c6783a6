"""Which bytes of a file are there: pure arithmetic on half-open stretches."""

from collections.abc import Iterable, Iterator

Stretch = tuple[int, int]


class Ranges:
    """Stretches of bytes, in order, none touching its neighbour."""

    def __init__(self, stretches: Iterable[Stretch] = ()) -> None:
        self._stretches: list[Stretch] = []
        for start, end in stretches:
            self.add(start, end)

    def __iter__(self) -> Iterator[Stretch]:
        return iter(self._stretches)

    @property
    def total(self) -> int:
        """Bytes in all stretches."""
        return sum(end - start for start, end in self._stretches)

    @property
    def end(self) -> int:
        """Where the last stretch ends."""
        return self._stretches[-1][1] if self._stretches else 0

    def add(self, start: int, end: int) -> None:
        """Join a stretch in; a download has a handful of them, so a walk through all is cheap."""
        if start >= end:
            return
        kept: list[Stretch] = []
        for other in self._stretches:
            if other[1] < start or other[0] > end:
                kept.append(other)
            else:
                start, end = min(start, other[0]), max(end, other[1])
        self._stretches = sorted([*kept, (start, end)])

    def reach(self, at: int) -> int:
        """How far the bytes go without a gap from ``at``; ``at`` itself when its byte is not there."""
        return next((end for start, end in self._stretches if start <= at < end), at)

    def missing(self, size: int, longest: int) -> list[Stretch]:
        """The gaps up to ``size``, in order, cut so that none is longer than ``longest``."""
        gaps: list[Stretch] = []
        at = 0
        for start, end in [*self._stretches, (size, size)]:
            gaps += [(cut, min(cut + longest, start)) for cut in range(at, start, longest)]
            at = end
        return gaps
