"""When a child that ended is started again: a pure rule, so that it can be read and tested alone."""

from dataclasses import dataclass

_FIRST_SECONDS = 0.2
#: A child that lived this long is healthy; what comes later is a new trouble.
_HEALTHY_SECONDS = 30.0


@dataclass(frozen=True)
class Restarts:
    """Short-lived ends in a row, and the pause before the next start."""

    in_a_row: int = 0
    delay_seconds: float = 0.0
    longest_seconds: float = 10.0

    def after(self, lived_seconds: float) -> "Restarts":
        """The state after one more end: the pause doubles from 0.2 s to its longest while lives stay short."""
        in_a_row = 1 if lived_seconds >= _HEALTHY_SECONDS else self.in_a_row + 1
        delay = min(_FIRST_SECONDS * 2 ** min(in_a_row - 1, 10), self.longest_seconds)
        return Restarts(in_a_row, delay, self.longest_seconds)
