"""The event transport port: a runner hands over batches and learns how far they are safe.

A transport is a pipe. It may repeat, reorder or lose batches; the spool, the chain of ``prev_seq`` and the ack
that follows the Postgres commit make the whole exact.
"""

from collections.abc import Iterable
from typing import Protocol

from dreamforge.announcements import Announcement, Answer
from dreamforge.errors import Unavailable
from dreamforge.events import Ack, EventBatch


class TransportUnavailable(Unavailable):
    """The transport can't be reached now; keep the events and try again."""


class EventSink(Protocol):
    """Where a runner sends its events. Raises ``TransportUnavailable``."""

    def send(self, batch: EventBatch) -> None:
        """Hand over one batch. Returning means the transport has it, not that it is safe: see ``ack``."""
        ...

    def ack(self, attempt_id: str) -> Ack | None:
        """The newest ack of this attempt; ``None`` before the first."""
        ...


class AnnouncementSink(Protocol):
    """Where the operator tells of RenderJobs. Raises ``TransportUnavailable``."""

    def announce(self, announcement: Announcement) -> None:
        """Hand over one announcement. Returning means the transport has it; :meth:`answers` tells when it counts."""
        ...

    def answers(self, asked: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Answer]:
        """What ingest answered, by ``(uid, type)``; what is not there was not answered (yet, or for a week)."""
        ...
