"""Numbers an attempt's events, spools them, and sends them until Postgres has them.

The attempt calls :meth:`Outbox.emit` and :meth:`Outbox.progress` from any thread. Sending is a sequence of
:meth:`Outbox.turn` calls, by the outbox's own thread or by whoever drains what an earlier process left.
"""

import contextvars
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

from dreamforge import telemetry
from dreamforge.crashpoints import CrashPoint, reach
from dreamforge.errors import ErrorCode
from dreamforge.events import (
    ArtifactStored,
    AttemptFinished,
    AttemptStarted,
    EventBatch,
    Failure,
    GpuMeasured,
    ItemProgressed,
    Level,
    LogWritten,
    Outcome,
    RunnerEvent,
    Stage,
    Verdict,
)
from dreamforge.transport.base import EventSink, TransportUnavailable
from dreamforge_runner.spool import Spool

log = telemetry.logger(__name__)

BATCH_EVENTS = 200
SLICE_SECONDS = 0.25
PROGRESS_SECONDS = 0.25
ACK_POLL_SECONDS = 0.5
ACK_POLL_AT_END_SECONDS = 0.1
RESEND_SECONDS = 5.0
RESEND_MAX_SECONDS = 60.0
GAP_RESEND_SECONDS = 1.0
RETRY_SECONDS = 0.5
RETRY_MAX_SECONDS = 5.0
_IDLE_SECONDS = 30.0
_URGENT = (AttemptStarted, ArtifactStored, AttemptFinished)

EventT = TypeVar("EventT", bound=RunnerEvent)


class Outbox:
    """One attempt's events on their way."""

    def __init__(
        self,
        spool: Spool,
        sink: EventSink,
        *,
        on_refused: Callable[[Verdict], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spool = spool
        self._sink = sink
        self._on_refused = on_refused
        self._clock = clock
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._done = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._held: dict[int, tuple[float, Stage, int, int]] = {}
        self._shown: dict[int, float] = {}
        self._sent = self._acked = spool.header.acked
        self._slice_due: float | None = clock() if spool.last_seq > self._acked else None
        self._ack_due = 0.0
        self._resend_after = RESEND_SECONDS
        self._resend_due = 0.0
        self._retry_after = RETRY_SECONDS
        self._retry_due = 0.0
        self.refused: Verdict | None = None

    @property
    def attempt_id(self) -> str:
        return self._spool.header.attempt_id

    @property
    def stored(self) -> int:
        """How many items this attempt has reported as stored."""
        return self._spool.stored

    @property
    def drained(self) -> bool:
        """Whether nothing is left to do: all is safe, or refused."""
        return self._done.is_set()

    def emit(self, kind: type[EventT], **fields: Any) -> EventT:
        """Number an event and put it in the spool; urgent ones leave at once, others within a slice."""
        with self._lock:
            index = fields.get("item_index")
            if kind is AttemptFinished:
                self._held.clear()
            elif kind is ArtifactStored and index is not None:
                self._held.pop(index, None)
                self._shown.pop(index, None)
            return self._add(kind, fields)

    def log(self, code: str, message: str, *, level: Level = Level.INFO, item_index: int | None = None) -> None:
        """A line for the people who follow the job."""
        self.emit(LogWritten, level=level, code=code, message=message[:4000], item_index=item_index)

    def progress(self, item_index: int, stage: Stage, step_index: int, steps_total: int) -> None:
        """How far an item is: at most four a second leave, the newest of them always does."""
        now = self._clock()
        with self._lock:
            due = self._shown.get(item_index, -PROGRESS_SECONDS) + PROGRESS_SECONDS
            if now < due:
                self._held[item_index] = (due, stage, step_index, steps_total)
            else:
                self._show(now, item_index, stage, step_index, steps_total)

    def start(self) -> None:
        """Send from a thread of its own until drained or stopped."""
        run = contextvars.copy_context().run  # its log lines name the job too
        self._thread = threading.Thread(target=run, args=(self._run,), name="outbox", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Leave what is unsent to the spool and the next process."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(10)
        with self._lock:
            if not self._done.is_set():
                self._spool.close()

    def wait_drained(self, timeout: float) -> bool:
        """Wait until all is safe (or refused); False when time ran out first."""
        return self._done.wait(timeout)

    def turn(self) -> float:
        """Do what is due now; the answer is how many seconds may pass until the next turn."""
        now = self._clock()
        with self._lock:
            self._release_held(now)
        if now < self._retry_due:
            return self._retry_due - now
        try:
            self._send_due(now)
            self._ask_for_ack(now)
        except TransportUnavailable as error:
            if self._retry_after == RETRY_SECONDS:
                log.warning(
                    "events wait: the transport is not reachable", attempt_id=self.attempt_id, cause=str(error)
                )
            self._retry_due = now + self._retry_after
            self._retry_after = min(self._retry_after * 2, RETRY_MAX_SECONDS)
            return self._retry_due - now
        self._retry_after = RETRY_SECONDS
        return self._until_next()

    def abandon_as_lost(self) -> None:
        """End the attempt of a process that died before it could. It counts: a job that kills its runner must end."""
        if not self._spool.finished:
            if not self._spool.measured:
                self.emit(
                    GpuMeasured,
                    source="none",
                    start_mib=None,
                    peak_mib=None,
                    end_mib=None,
                    clean=None,
                    child_discarded=True,
                )
            why = Failure(code=ErrorCode.RUNNER_LOST, message="The runner's process died while it had the job")
            self.emit(
                AttemptFinished, outcome=Outcome.FAILED, exit_code=1, items_done=self._spool.stored, failure=why
            )

    def _run(self) -> None:
        while not (self._done.is_set() or self._stopping):
            self._wake.wait(self.turn())
            self._wake.clear()

    def _add(self, kind: type[EventT], fields: dict[str, Any]) -> EventT:
        event = kind(seq=self._spool.last_seq + 1, ts=datetime.now(UTC), **fields)
        if self._done.is_set():
            if kind is GpuMeasured:
                self._tell_gpu(event)
            return event  # refused: nobody wants the rest any more
        self._spool.append(event)
        if kind is ArtifactStored:
            reach(CrashPoint.RUNNER_ARTIFACT_SPOOLED)
        due = self._clock() + (0 if isinstance(event, _URGENT) else SLICE_SECONDS)
        if self._slice_due is None or due < self._slice_due:
            self._slice_due = due
            self._wake.set()
        return event

    def _show(self, now: float, item_index: int, stage: Stage, step_index: int, steps_total: int) -> None:
        self._held.pop(item_index, None)
        self._shown[item_index] = now
        fields = {"item_index": item_index, "stage": stage, "step_index": step_index, "steps_total": steps_total}
        self._add(ItemProgressed, fields)

    def _release_held(self, now: float) -> None:
        for item_index, (due, stage, step_index, steps_total) in list(self._held.items()):
            if due <= now:
                self._show(now, item_index, stage, step_index, steps_total)

    def _send_due(self, now: float) -> None:
        if self._sent > self._acked and now >= self._resend_due:
            self._rewind(now)
        with self._lock:
            if self._slice_due is None or now < self._slice_due:
                return
            self._slice_due = None
        try:
            while batch := self._next_batch():
                if self._sent == self._acked:
                    self._resend_due = now + self._resend_after
                self._sink.send(batch)
                self._sent = batch.last_seq
        except TransportUnavailable:
            self._slice_due = now
            raise

    def _next_batch(self) -> EventBatch | None:
        with self._lock:
            events = self._spool.after(self._sent, BATCH_EVENTS)
        if not events:
            return None
        # What was sent before, not `first - 1`: events dropped from a full spool are no gap.
        return self._spool.header.batch(self._sent, events)

    def _ask_for_ack(self, now: float) -> None:
        if self._sent <= self._acked or now < self._ack_due:
            return
        self._ack_due = now + (ACK_POLL_AT_END_SECONDS if self._spool.finished else ACK_POLL_SECONDS)
        ack = self._sink.ack(self.attempt_id)
        if ack is None:
            return
        if ack.verdict.refused:
            self._refuse(ack.verdict)
            return
        if ack.seq > self._acked:
            reach(CrashPoint.RUNNER_ACK_SEEN)
            self._trim(now, ack.seq)
        if ack.verdict is Verdict.GAP and ack.seq == self._acked < self._sent:
            # Either batches overtook each other and the ack is about to move, or one is lost.
            self._resend_due = min(self._resend_due, now + GAP_RESEND_SECONDS)

    def _trim(self, now: float, seq: int) -> None:
        with self._lock:
            self._acked = min(seq, self._spool.last_seq)
            self._sent = max(self._sent, self._acked)
            self._spool.trim(self._acked)
            self._resend_after = RESEND_SECONDS
            self._resend_due = now + self._resend_after
            if self._spool.finished and self._acked >= self._spool.last_seq:
                self._spool.remove()
                self._done.set()

    def _rewind(self, now: float) -> None:
        """No ack moved for a while: what was sent may be lost, so send it again from the last safe event."""
        log.warning("events are sent again", attempt_id=self.attempt_id, from_seq=self._acked + 1, to_seq=self._sent)
        self._resend_after = min(self._resend_after * 2, RESEND_MAX_SECONDS)
        self._resend_due = now + self._resend_after
        self._sent = self._acked
        self._slice_due = now

    def _refuse(self, verdict: Verdict) -> None:
        log.warning("events are refused, the attempt ends", attempt_id=self.attempt_id, verdict=verdict.value)
        with self._lock:
            self.refused = verdict
            self._spool.remove()
            self._done.set()
        if self._on_refused is not None:
            self._on_refused(verdict)

    def _tell_gpu(self, event: RunnerEvent) -> None:
        """A refused attempt's GPU verdict is still recorded; it is sent once, and no ack is waited for."""
        try:
            self._sink.send(self._spool.header.batch(event.seq - 1, [event]))
        except TransportUnavailable:
            log.warning("a refused attempt's GPU verdict is lost", attempt_id=self.attempt_id)

    def _until_next(self) -> float:
        if self._done.is_set():
            return 0.0
        now = self._clock()
        with self._lock:
            dues = [due for due, *_ in self._held.values()]
            if self._slice_due is not None:
                dues.append(self._slice_due)
        if self._sent > self._acked:
            dues += [self._ack_due, self._resend_due]
        return max(0.0, min(dues) - now) if dues else _IDLE_SECONDS
