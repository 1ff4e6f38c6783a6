"""The queue limit, without counting the queue for every request.

Far from the limit an estimate decides: the count of a moment ago plus what this process added since. Near it, the
database is asked, and requests of this process that are still being written count as written.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from dreamforge.db import jobs
from dreamforge.errors import ErrorCode
from dreamforge_api.database import Database
from dreamforge_api.problem import busy

_MARGIN = 50
_RETRY_AFTER_SECONDS = 5


class Admission:
    """Lets jobs into the queue, up to ``limit``."""

    def __init__(self, database: Database, limit: int) -> None:
        self._database = database
        self._limit = limit
        self._depth = jobs.queue_depth(limit + 1)
        self._estimate = 0
        self._writing = 0
        self._careful_from = limit - limit // 10 - _MARGIN

    async def refresh(self) -> None:
        """Count again; called every second. Nothing above the limit needs an exact number."""
        self._estimate = await self._database.shared(self._depth) + self._writing

    @contextmanager
    def writing(self) -> Iterator[int]:
        """Hold a place while a job is being written; gives how many were held before."""
        before = self._writing
        self._writing += 1
        try:
            yield before
        finally:
            self._writing -= 1

    async def require_place(self, held_before: int) -> None:
        """Raises a 429 :class:`~dreamforge_api.problem.Problem` when the queue is full."""
        if self._estimate < self._careful_from:
            return
        depth = await self._database.scalar(self._depth)
        self._estimate = depth + self._writing
        if depth + held_before >= self._limit:
            raise busy(
                ErrorCode.QUEUE_FULL, f"{self._limit} jobs are queued, which is the limit", _RETRY_AFTER_SECONDS
            )

    def added(self) -> int:
        """A job was written; gives its place in the queue, as far as this process knows (1 is next)."""
        self._estimate += 1
        return self._estimate
