"""The functions that take batches of events off the queue.

RQ imports the functions at the end by name (:data:`dreamforge.transport.names.INGEST_FUNCTION` and
``ANNOUNCE_FUNCTION``), so the process installs what it works with before the first job comes.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import Engine
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from dreamforge import telemetry
from dreamforge.crashpoints import CrashPoint, reach
from dreamforge.events import BATCH, Ack, EventBatch, Verdict
from dreamforge.transport import names
from dreamforge_api import metrics
from dreamforge_api.worker import ingest, outcomes
from dreamforge_api.worker.retry import RetryPolicy, Then
from dreamforge_api.worker.signals import Signals

log = telemetry.logger("ingest")
_BACKOFF_SECONDS = 1.0


class Ingestor:
    """Commits batches one by one; waits out a database that is away instead of dropping work."""

    def __init__(
        self,
        engine: Engine,
        signals: Signals,
        policy: RetryPolicy,
        stop: threading.Event,
        unknown_for: timedelta = timedelta(),
    ) -> None:
        self._engine = engine
        self._unknown_for = unknown_for
        self._signals = signals
        self._policy = policy
        self._stop = stop

    def __call__(self, texts: Sequence[str]) -> None:
        """Ingest messages; those of an attempt that follow one another are one transaction.

        What it raises for a single message sends that to the dead letters with the reason. All of it may be repeated.
        """
        for batch in chained([_parsed(text) for text in texts]):
            self._ingest(batch)

    def _ingest(self, batch: EventBatch) -> None:
        with telemetry.bound(job_id=batch.job_id, step=batch.step, correlation_id=batch.correlation_id):
            try:
                done = self._commit(batch)
            except ingest.BadBatch:
                # Without this the runner would send the same batch for ever.
                refused = Ack(attempt_id=batch.attempt_id, seq=batch.last_seq, verdict=Verdict.REFUSED_BAD_BATCH)
                self._signals.committed(refused, batch.job_id, 0)
                metrics.INGEST_BATCHES.labels(refused.verdict).inc()
                raise
            reach(CrashPoint.INGEST_COMMITTED)
            ack = Ack(attempt_id=batch.attempt_id, seq=done.acked_seq, verdict=done.verdict)
            self._signals.committed(ack, batch.job_id, done.job_seq, done.progress)
            if done.decision is not None and done.decision.then is Then.AGAIN:
                self._signals.wake()
            self._count(batch, done)

    def _commit(self, batch: EventBatch) -> ingest.Ingested:
        while True:
            try:
                return ingest.ingest_batch(self._engine, batch, self._policy, unknown_for=self._unknown_for)
            except (DataError, IntegrityError) as error:
                # The first line only: the detail after it may quote the row, and a prompt with it.
                reason = str(error.orig).partition("\n")[0]
                raise ingest.BadBatch(f"the database refuses the batch: {reason}") from None
            except (DBAPIError, PoolTimeout) as error:
                said = str(error.args[0] if error.args else "").partition("\n")[0]
                log.warning("the database is away; the batch waits", error=said)
                if self._stop.wait(_BACKOFF_SECONDS):
                    raise  # the runner still holds these events and sends them again

    def _count(self, batch: EventBatch, done: ingest.Ingested) -> None:
        metrics.INGEST_BATCHES.labels(done.verdict).inc()
        if done.verdict is not Verdict.COMMITTED or done.changes is None:
            if done.verdict is not Verdict.COMMITTED:
                log.info("batch not applied", verdict=done.verdict, prev_seq=batch.prev_seq)
            return
        metrics.INGEST_EVENTS.inc(len(batch.events))
        for seconds in done.changes.item_seconds:
            metrics.ITEM_DURATION.labels(done.model_kind).observe(seconds)
        metrics.ITEMS.labels("succeeded").inc(len(done.changes.artifacts))
        if done.started is not None and done.created is not None:
            metrics.JOB_QUEUE_DELAY.observe(max((done.started - done.created).total_seconds(), 0.0))
        if done.changes.gpu is not None:
            _count_gpu(done)
        if done.changes.finished is not None and done.decision is not None:
            again = "failure" if done.decision.counted else "stop"
            age = _age(done.changes.finished.ts, done.created)
            outcomes.note(batch.job_id, done.decision, again=again, by="runner", seconds=age)
            _count_finish(done)


def _parsed(text: str) -> EventBatch:
    try:
        return BATCH.validate_json(text)
    except ValidationError as error:
        metrics.INGEST_BATCHES.labels("rejected").inc()
        raise ingest.BadBatch(f"not a batch: {error.errors(include_input=False, include_url=False)}") from None


def chained(batches: Iterable[EventBatch]) -> list[EventBatch]:
    """The same events in fewer batches: one that goes on exactly where its attempt's last one ended is joined to it.

    Order within an attempt is kept.
    """
    joined: list[EventBatch] = []
    newest: dict[tuple[UUID, str, int, str], int] = {}
    for batch in batches:
        attempt = (batch.job_id, batch.step, batch.shard, batch.attempt_id)
        place = newest.get(attempt)
        if place is not None and batch.prev_seq == joined[place].last_seq:
            longer = [*joined[place].events, *batch.events]
            joined[place] = joined[place].model_copy(update={"events": longer})
        else:
            newest[attempt] = len(joined)
            joined.append(batch)
    return joined


def _count_gpu(done: ingest.Ingested) -> None:
    gpu = done.changes.gpu if done.changes else None
    if gpu is None:
        return
    metrics.GPU_VERDICTS.labels({True: "true", False: "false", None: "unknown"}[gpu.clean]).inc()
    for phase in ("start", "peak", "end"):
        figure = getattr(gpu, f"{phase}_mib")
        if figure is not None:
            metrics.GPU_MEMORY.labels(phase).set(figure)


def _count_finish(done: ingest.Ingested) -> None:
    finished = done.changes.finished if done.changes else None
    if finished is None or done.decision is None:
        return
    if finished.failure is not None:
        metrics.ERRORS.labels(finished.failure.code).inc()
        metrics.ITEMS.labels("failed").inc()
    log.info("attempt ended", outcome=finished.outcome, then=done.decision.then)


def _age(ended: datetime, created: datetime | None) -> float | None:
    return None if created is None else (ended - created).total_seconds()


Takes = Callable[[Sequence[str]], None]
_installed: dict[str, Takes] = {}


def install(ingestor: Takes, listener: Takes | None = None) -> None:
    """Give batches to ``ingestor`` and, where there is a cluster, its operator's announcements to ``listener``."""
    _installed[names.INGEST_FUNCTION] = ingestor
    if listener is not None:
        _installed[names.ANNOUNCE_FUNCTION] = listener


def take(function: str, texts: Sequence[str]) -> None:
    """Commit several messages of one kind, each given as JSON text; ``function`` is what they name on the queue."""
    if function not in _installed:
        raise RuntimeError(f"this process takes no messages for {function}")
    _installed[function](texts)


def ingest_batch(text: str) -> None:
    """Commit one batch of events: what a runner's message names."""
    take(names.INGEST_FUNCTION, [text])


def ingest_announcement(text: str) -> None:
    """Commit one announcement: what an operator's message names."""
    take(names.ANNOUNCE_FUNCTION, [text])
