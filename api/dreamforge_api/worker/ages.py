"""How long everything is kept, and what is past its age."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine

from dreamforge.db import retention as statements
from dreamforge.storage.base import Storage
from dreamforge_api.worker.orphans import orphans
from dreamforge_api.worker.settings import RetentionSettings


@dataclass(frozen=True)
class Policy:
    """Ages in hours; 0 keeps for ever."""

    objects_hours: float = 24.0
    events_hours: float = 168.0
    jobs_hours: float = 720.0
    orphan_grace_hours: float = 24.0
    model_events_hours: float = 2160.0
    #: Rows per transaction.
    batch: int = 200

    @classmethod
    def of(cls, given: RetentionSettings) -> "Policy":
        return cls(
            given.retention_objects_hours,
            given.retention_events_hours,
            given.retention_jobs_hours,
            given.retention_orphan_grace_hours,
            given.retention_model_events_hours,
        )

    def grace_began(self) -> datetime:
        """An orphan that was written before may go."""
        return datetime.now(UTC) - timedelta(hours=self.orphan_grace_hours)


def past(engine: Engine, storage: Storage, policy: Policy) -> Iterator[tuple[str, int, str]]:
    """``kind, how many, detail`` of what a pass of retention would remove; changes nothing.

    A job that goes takes its images and events along, so the kinds overlap. Raises ``StorageError`` and what
    SQLAlchemy raises.
    """
    for kind, statement, hours in (
        ("idempotency_key", statements.COUNT_KEYS, None),
        ("artifact", statements.COUNT_ARTIFACTS, _soonest(policy.objects_hours, policy.jobs_hours)),
        ("event", statements.COUNT_EVENTS, _soonest(policy.events_hours, policy.jobs_hours)),
        ("job", statements.COUNT_JOBS, policy.jobs_hours),
        ("model_event", statements.COUNT_MODEL_EVENTS, policy.model_events_hours),
    ):
        if hours == 0:
            continue
        with engine.connect() as connection:
            row = connection.execute(statement, {} if hours is None else {"hours": hours}).one()
        yield kind, row.rows, f"{row.bytes} bytes" if kind == "artifact" else ""
    if policy.orphan_grace_hours:
        for found in orphans(engine, storage, policy.grace_began()):
            yield "orphan", 1, f"{found.key} ({found.size_bytes} bytes)"


def _soonest(*hours: float) -> float:
    """The first of these ages; 0 when none is set."""
    return min((given for given in hours if given), default=0)
