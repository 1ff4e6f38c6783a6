"""Takes the operator's announcements off the queue, commits each, and answers it."""

import threading
from collections.abc import Sequence
from datetime import UTC, datetime

from pydantic import ValidationError
from sqlalchemy import Engine
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from dreamforge import telemetry
from dreamforge.announcements import ANNOUNCEMENT, Announcement, Answer, JobCancelRequested, Reception
from dreamforge.errors import ErrorCode, JobError
from dreamforge.events import Failure
from dreamforge.jobs import StepName
from dreamforge.storage.base import Storage, StorageError
from dreamforge_api import metrics
from dreamforge_api.worker import announced, outcomes, recovery
from dreamforge_api.worker.announced import ModelRule, Received
from dreamforge_api.worker.ingest import BadBatch, ingest_batch
from dreamforge_api.worker.retry import Decision, RetryPolicy, Then
from dreamforge_api.worker.signals import Signals

log = telemetry.logger("announced")
_BACKOFF_SECONDS = 1.0


class Listener:
    """Waits out a database that is away; what the store can't tell now is left for the operator to say again."""

    def __init__(
        self,
        engine: Engine,
        storage: Storage,
        signals: Signals,
        rule: ModelRule,
        policy: RetryPolicy,
        stop: threading.Event,
    ) -> None:
        self._engine = engine
        self._storage = storage
        self._signals = signals
        self._rule = rule
        self._policy = policy
        self._stop = stop

    def __call__(self, texts: Sequence[str]) -> None:
        """Commit announcements in order. What it raises for one sends that to the dead letters with the reason."""
        for text in texts:
            self._hear(_parsed(text))

    def _hear(self, told: Announcement) -> None:
        with telemetry.bound(job_id=told.job_id, step=StepName.GENERATE.value, renderjob=told.ref):
            while True:
                try:
                    done = self._commit(told)
                    break
                except (DataError, IntegrityError) as error:
                    # The first line only: the detail after it may quote the row, and a prompt with it.
                    reason = str(error.orig).partition("\n")[0]
                    raise BadBatch(f"the database refuses the announcement: {reason}") from None
                except StorageError as error:
                    log.warning("the store is away; the operator will say it again", error=type(error).__name__)
                    return
                except (DBAPIError, PoolTimeout) as error:
                    log.warning("the database is away; an announcement waits", error=type(error).__name__)
                    if self._stop.wait(_BACKOFF_SECONDS):
                        raise
            self._answer(told, done)

    def _commit(self, told: Announcement) -> Received:
        done = announced.receive(self._engine, told, self._rule)
        return self._find_images(told) if done.images_missing else done

    def _find_images(self, told: Announcement) -> Received:
        """The cluster says that the job succeeded: its images are in the store, or it did not."""
        try:
            batch = recovery.recovered(self._engine, self._storage, told)
            if batch is None:
                return Received(Reception.OVER)
            found = ingest_batch(self._engine, batch, self._policy)
            log.warning("images that no runner told of were found in the store", verdict=found.verdict.value)
            seconds = None if found.created is None else (datetime.now(UTC) - found.created).total_seconds()
            return Received(Reception.RECORDED, found.job_seq or None, decision=found.decision, seconds=seconds)
        except (recovery.NotWhole, JobError) as error:
            message = f"the cluster reports success, but {error}"
            decision = Decision(Then.FAIL, Failure(code=ErrorCode.STORAGE_ERROR, message=message))
        with self._engine.begin() as connection:
            return announced.end(connection, told.job_id, decision)._replace(message=message)

    def _answer(self, told: Announcement, done: Received) -> None:
        answer = Answer(uid=told.uid, type=told.type, reception=done.reception, code=done.code, message=done.message)
        self._signals.answered(answer, told.job_id, done.seq)
        if isinstance(told, JobCancelRequested):
            self._signals.wake()
        metrics.ANNOUNCEMENTS.labels(told.type, done.reception.value).inc()
        if done.code is not None and done.seq is not None:
            metrics.ERRORS.labels(done.code).inc()
        if done.decision is not None:
            outcomes.note(told.job_id, done.decision, again="failure", by=None, seconds=done.seconds)
        if done.reception.refused:
            log.warning("a RenderJob is refused", reception=done.reception.value, reason=done.message)


def _parsed(text: str) -> Announcement:
    try:
        return ANNOUNCEMENT.validate_json(text)
    except ValidationError as error:
        raise BadBatch(
            f"not an announcement: {error.errors(include_input=False, include_url=False, include_context=False)}"
        ) from None
