"""What is kept how long: images, events, whole jobs by the age of the job's end, replay keys by their expiry,
what happened to models by its own age.

    python -m dreamforge_api.worker.retention --dry-run     say what would go
    python -m dreamforge_api.worker.retention               one pass, now

The worker makes a pass every ``DF_RETENTION_INTERVAL_SECONDS`` in a thread of its own: a store may take minutes to
list, and dispatch must not wait for that. Only jobs that have ended are looked at, a few rows per transaction, and
one pass at a time in the whole installation. An image's row goes before its object: a crash in between leaves an
object that nobody can name, which the search for orphans removes, and never a link to nothing.
"""

import argparse
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, Row, TextClause
from sqlalchemy.exc import SQLAlchemyError

from dreamforge import settings, telemetry
from dreamforge.crashpoints import CrashPoint, CrashSettings, arm_from, reach
from dreamforge.db import retention as statements
from dreamforge.db.engine import open_engine
from dreamforge.errors import ConfigurationError
from dreamforge.jobs import StepName
from dreamforge.keys import manifest_key
from dreamforge.storage.base import Storage, StorageError
from dreamforge.storage.factory import open_storage
from dreamforge_api import metrics
from dreamforge_api.worker.ages import Policy, past
from dreamforge_api.worker.orphans import orphans
from dreamforge_api.worker.settings import RetentionSettings

log = telemetry.logger("retention")

_LOCK = 0x0D_F0_4E_70  # any constant that no other program uses in this database
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NIL = UUID(int=0)
#: Removing a job takes its items, steps and attempts along, up to some hundred rows.
_JOBS = 20


@dataclass
class _Cursor:
    """How far earlier passes of this process came: without it every pass would look at every old job again."""

    since: datetime = _EPOCH
    after: UUID = _NIL


@dataclass
class Retention:
    """One pass is :meth:`sweep`. Raises ``StorageError`` and what SQLAlchemy raises; the next pass goes on."""

    engine: Engine
    storage: Storage
    policy: Policy
    removed: Counter[str] = field(default_factory=Counter)
    _artifacts: _Cursor = field(default_factory=_Cursor)
    _events: _Cursor = field(default_factory=_Cursor)
    _orphans_at: float = float("-inf")

    def sweep(self, stopping: Callable[[], bool] = lambda: False) -> Mapping[str, int] | None:
        """Remove what is past its age, until done or ``stopping``. What went, by kind; ``None`` when another
        process is at it."""
        self.removed = Counter()
        with self._alone() as alone:
            if not alone:
                return None
            for duty in (
                self._old_keys,
                self._old_objects,
                self._old_events,
                self._old_jobs,
                self._old_model_events,
                self._orphans,
            ):
                if not stopping():
                    duty(stopping)
        if self.removed:
            log.info("retention removed what was past its age", removed=dict(self.removed))
        metrics.RETENTION_DONE.set_to_current_time()
        return self.removed

    def _old_keys(self, stopping: Callable[[], bool]) -> None:
        self._repeat("idempotency_key", statements.REMOVE_KEYS, {}, stopping)

    def _old_objects(self, stopping: Callable[[], bool]) -> None:
        hours = self.policy.objects_hours
        for jobs in self._pages(statements.JOBS_WITH_ARTIFACTS, hours, self._artifacts, stopping):
            self._remove_images(jobs, stopping)

    def _old_events(self, stopping: Callable[[], bool]) -> None:
        hours = self.policy.events_hours
        for jobs in self._pages(statements.JOBS_WITH_EVENTS, hours, self._events, stopping):
            self._repeat("event", statements.REMOVE_EVENTS, _ids(jobs), stopping)

    def _old_jobs(self, stopping: Callable[[], bool]) -> None:
        for jobs in self._pages(statements.JOBS, self.policy.jobs_hours, _Cursor(), stopping, size=_JOBS):
            self._remove_images(jobs, stopping)
            self._repeat("event", statements.REMOVE_EVENTS, _ids(jobs), stopping)
            if stopping():
                return
            with self.engine.begin() as connection:
                gone = connection.execute(statements.REMOVE_JOBS, _ids(jobs)).all()
            self._count("job", len(gone))

    def _old_model_events(self, stopping: Callable[[], bool]) -> None:
        if hours := self.policy.model_events_hours:
            self._repeat("model_event", statements.REMOVE_MODEL_EVENTS, {"hours": hours}, stopping)

    def _orphans(self, stopping: Callable[[], bool]) -> None:
        """Now and then only: the whole store is listed for it."""
        hours = self.policy.orphan_grace_hours
        if not hours or time.monotonic() - self._orphans_at < hours * 3600 / 24:
            return
        for found in orphans(self.engine, self.storage, self.policy.grace_began()):
            if stopping():
                return
            self.storage.delete(found.key)
            log.info("removed an orphaned object", key=found.key, size_bytes=found.size_bytes)
            self._count("orphan", 1)
        self._orphans_at = time.monotonic()

    def _remove_images(self, jobs: list[Row[Any]], stopping: Callable[[], bool]) -> None:
        touched: set[UUID] = set()
        while not stopping():
            with self.engine.begin() as connection:
                bounds = {**_ids(jobs), "limit": self.policy.batch}
                rows = connection.execute(statements.REMOVE_ARTIFACTS, bounds).all()
            self._count("artifact", len(rows))
            if rows:
                reach(CrashPoint.RETENTION_ROWS_REMOVED)
            self._delete(row.key for row in rows)
            touched |= {row.job_id for row in rows}
            if len(rows) < self.policy.batch:
                emptied = [job for job in jobs if job.id in touched]
                self._delete(manifest_key(job.id, step, job.owner) for job in emptied for step in StepName)
                if emptied:
                    reach(CrashPoint.RETENTION_OBJECTS_REMOVED)
                return

    def _delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.storage.delete(key)
            self._count("object", 1)

    def _repeat(
        self, kind: str, statement: TextClause, parameters: dict[str, Any], stopping: Callable[[], bool]
    ) -> None:
        """Run a removing statement until it finds less than a batch."""
        gone = self.policy.batch
        while gone == self.policy.batch and not stopping():
            with self.engine.begin() as connection:
                gone = connection.execute(statement, {**parameters, "limit": self.policy.batch}).rowcount
            self._count(kind, gone)

    def _pages(
        self,
        statement: TextClause,
        hours: float,
        cursor: _Cursor,
        stopping: Callable[[], bool],
        size: int | None = None,
    ) -> Iterator[list[Row[Any]]]:
        """Jobs past ``hours``, oldest end first; the cursor moves on once the caller is done with a page."""
        limit = size or self.policy.batch
        while hours and not stopping():
            bounds = {"hours": hours, "since": cursor.since, "after": cursor.after, "limit": limit}
            with self.engine.connect() as connection:
                page = list(connection.execute(statement, bounds).all())
            if not page:
                return
            yield page
            if not stopping():
                cursor.since, cursor.after = page[-1].finished_at, page[-1].id

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        with self.engine.connect() as raw:
            connection = raw.execution_options(isolation_level="AUTOCOMMIT")
            alone = bool(connection.execute(statements.LOCK, {"key": _LOCK}).scalar_one())
            try:
                yield alone
            finally:
                if alone and not connection.invalidated:
                    connection.execute(statements.UNLOCK, {"key": _LOCK})

    def _count(self, kind: str, number: int) -> None:
        if number:
            self.removed[kind] += number
            metrics.RETENTION_REMOVED.labels(kind).inc(number)


def _ids(jobs: list[Row[Any]]) -> dict[str, Any]:
    return {"jobs": [job.id for job in jobs]}


def run(retention: Retention, interval_seconds: float, stop: threading.Event) -> None:
    """A pass every ``interval_seconds`` until ``stop``."""
    metrics.RETENTION_DONE.set_to_current_time()
    while not stop.is_set():
        try:
            retention.sweep(stop.is_set)
        except (StorageError, SQLAlchemyError) as error:
            log.warning("retention goes on at its next pass", error=str(error))
        stop.wait(interval_seconds)


def main(arguments: list[str] | None = None) -> int:
    """One pass by hand; 2 for a wrong setting, 3 when database or store can't be reached."""
    parser = argparse.ArgumentParser(prog="python -m dreamforge_api.worker.retention", description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="say what would go, remove nothing")
    dry = parser.parse_args(arguments).dry_run
    try:
        given = settings.load(RetentionSettings)
        arm_from(settings.load(CrashSettings))
        telemetry.configure("retention", given.log_level)
        engine = open_engine(given.database_url, pool_size=2)
        retention = Retention(engine, open_storage(given), Policy.of(given))
    except ConfigurationError as error:
        print(error, file=sys.stderr)  # noqa: T201 - a person's terminal
        return 2
    try:
        return _print(_told(retention, dry=dry))
    except (StorageError, SQLAlchemyError) as error:
        print(f"not finished: {error}", file=sys.stderr)  # noqa: T201 - a person's terminal
        return 3
    finally:
        engine.dispose()


def _told(retention: Retention, *, dry: bool) -> Iterator[str]:
    if dry:
        for kind, number, detail in past(retention.engine, retention.storage, retention.policy):
            yield f"would remove  {kind:<16}{number:>9}  {detail}".rstrip()
        return
    removed = retention.sweep()
    if removed is None:
        yield "another process is at it"
        return
    for kind, number in sorted(removed.items()):
        yield f"removed  {kind:<16}{number:>9}"


def _print(lines: Iterator[str]) -> int:
    for line in lines:
        print(line)  # noqa: T201 - what the command is for
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
