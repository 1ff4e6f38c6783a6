"""The transport's twin in memory: keeps the port's promises, and breaks them on demand, in one process.

It answers as ingest does (each event once, in order, a gap refused), so that a runner's spool and resending can be
proved without servers. Contract: ``tests/contract/test_transport.py`` holds it to what the Redis sink does.
"""

import threading

from dreamforge.events import Ack, EventBatch, RunnerEvent, Verdict
from dreamforge.transport.base import TransportUnavailable


class MemoryEventSink:
    """Commits batches to lists. The switches say what goes wrong from now on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._acks: dict[str, Ack] = {}
        self._committed: dict[str, list[RunnerEvent]] = {}
        self.batches: list[EventBatch] = []
        self.down = False
        self.losing = False  # takes batches and forgets them, as a Redis that dies without a snapshot
        self.refusal: Verdict | None = None

    def send(self, batch: EventBatch) -> None:
        with self._lock:
            self._raise_when_down()
            self.batches.append(batch)
            if not self.losing:
                self._acks[batch.attempt_id] = self._commit(batch)

    def ack(self, attempt_id: str) -> Ack | None:
        with self._lock:
            self._raise_when_down()
            return self._acks.get(attempt_id)

    def committed(self, attempt_id: str) -> list[RunnerEvent]:
        """What is safe, in order."""
        with self._lock:
            return list(self._committed.get(attempt_id, []))

    def wipe(self) -> None:
        """Forget every ack, as a Redis that was emptied; what is committed stays."""
        with self._lock:
            self._acks.clear()

    def _commit(self, batch: EventBatch) -> Ack:
        events = self._committed.setdefault(batch.attempt_id, [])
        last = events[-1].seq if events else 0
        verdict = Verdict.COMMITTED
        if self.refusal is not None:
            verdict = self.refusal
        elif batch.prev_seq > last:
            verdict = Verdict.GAP
        else:
            events.extend(event for event in batch.events if event.seq > last)
        return Ack(attempt_id=batch.attempt_id, seq=events[-1].seq if events else 0, verdict=verdict)

    def _raise_when_down(self) -> None:
        if self.down:
            raise TransportUnavailable("the memory transport is switched off")
