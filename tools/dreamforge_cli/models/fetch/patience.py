"""How often a failed request is tried again, and how long to wait before: longer each time, never in step."""

import random

from dreamforge_cli.models.errors import NetworkError
from dreamforge_cli.models.fetch.answers import TryAgain
from dreamforge_cli.models.fetch.limits import Limits

#: So many new bytes between two failures make the second one a first.
PROGRESS_BYTES = 64 * 1024


class Patience:
    """One worker's count of failures in a row."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._failures = 0
        self._at = 0

    @property
    def exhausted(self) -> bool:
        return self._failures >= self._limits.tries

    @property
    def since(self) -> int:
        """What had been received when the row of failures began."""
        return self._at

    def reward(self) -> None:
        """A stretch came whole: the next failure is a first."""
        self._failures = 0

    def pause(self, failure: TryAgain, own: int, received: int) -> float:
        """Count a failure after ``own`` bytes of success; how long to wait now.

        ``received`` is what all workers together have got so far. Raises when the server asks for too long a wait.
        """
        limits = self._limits
        if failure.after is not None and failure.after > limits.longest_retry_after_seconds:
            raise NetworkError(
                f"{failure.reason}; it asks to wait {failure.after:.0f} seconds, which is too long: try later"
            )
        if self._failures == 0 or own >= PROGRESS_BYTES:
            self._failures, self._at = 0, received
        self._failures += 1
        longest = min(limits.longest_pause_seconds, limits.pause_seconds * 2.0 ** (self._failures - 1))
        return max(failure.after or 0.0, longest * random.uniform(0.5, 1))  # noqa: S311 - spreads load, guards nothing
