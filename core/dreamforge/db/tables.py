"""Every table. Constraints make illegal states impossible, whoever writes.

``jobs`` is also the outbox (``dispatched_at IS NULL``) and holds the counter that ``events.seq`` is taken from
under the row's lock, so that a reader who has seen ``seq`` n has seen everything before it.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from dreamforge.db.columns import moment, one_of, schema_version
from dreamforge.errors import POISONOUS
from dreamforge.events import EventType, Level
from dreamforge.jobs import TERMINAL_STATES, AttemptState, ItemState, JobState
from dreamforge.models import ModelEvent

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_TERMINAL = one_of("status", TERMINAL_STATES)
#: Jobs that killed their runner for good and that nobody has dealt with yet. An index is built on these words.
DEAD_LETTER = f"status = 'failed' AND {one_of('error_code', POISONOUS)} AND dead_handled_at IS NULL"
#: Ended jobs that an executor may still keep something for; ``FINISH`` gives those without a ``dispatched_at`` one
#: of which that can't be ruled out. An index is built on these words.
UNRELEASED = f"{_TERMINAL} AND dispatched_at IS NOT NULL AND (status = 'canceled' OR executor_kind = 'kubernetes')"

jobs = Table(
    "jobs",
    metadata,
    Column("id", Uuid, primary_key=True, comment="UUIDv7: newest first is id descending"),
    schema_version(),
    Column("owner", Text, nullable=False, server_default=text("'default'")),
    Column("type", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("model_id", Text, nullable=False),
    Column("status", Text, nullable=False, server_default=text("'queued'")),
    Column("params", JSONB, nullable=False),
    Column("preset", Text, comment="The versioned name of the preset that filled params in"),
    Column("labels", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("warnings", JSONB, nullable=False, server_default=text("'[]'::jsonb")),
    Column("count", SmallInteger, nullable=False),
    Column("completed", SmallInteger, nullable=False, server_default=text("0")),
    Column("progress", Double, nullable=False, server_default=text("0")),
    Column("attempt", Integer, nullable=False, server_default=text("0"), comment="Highest attempt number"),
    Column("failures", Integer, nullable=False, server_default=text("0"), comment="Attempts that count"),
    Column("last_seq", BigInteger, nullable=False, server_default=text("0"), comment="Newest events.seq"),
    Column("correlation_id", Text, nullable=False),
    Column("executor_kind", Text),
    Column("executor_ref", Text),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("error_retryable", Boolean),
    Column("error_item_index", SmallInteger),
    moment("created_at", nullable=False),
    moment("started_at"),
    moment("finished_at"),
    moment("deadline_at", nullable=False),
    moment("cancel_requested_at"),
    moment("dispatched_at"),
    moment("next_dispatch_at", now=True),
    moment("last_seen_at"),
    moment("dead_handled_at"),
    CheckConstraint(one_of("status", JobState), name="status"),
    CheckConstraint(f"({_TERMINAL}) = (finished_at IS NOT NULL)", name="finished"),
    CheckConstraint("status NOT IN ('running', 'succeeded') OR started_at IS NOT NULL", name="started"),
    CheckConstraint("(status = 'failed') = (error_code IS NOT NULL)", name="error"),
    CheckConstraint("status <> 'succeeded' OR completed = count", name="succeeded_complete"),
    CheckConstraint("count BETWEEN 1 AND 100", name="count"),
    CheckConstraint("completed BETWEEN 0 AND count", name="completed"),
    CheckConstraint("progress BETWEEN 0 AND 1", name="progress"),
    CheckConstraint("last_seq >= 0 AND attempt >= 0 AND failures >= 0", name="counters"),
    Index("ix_jobs_status_id", "status", "id"),
    Index("ix_jobs_model_id_id", "model_id", "id"),
    # With only one of the two, a page of a model's rare state is found by reading all the model's jobs.
    Index("ix_jobs_model_id_status_id", "model_id", "status", "id"),
    Index("ix_jobs_labels", "labels", postgresql_using="gin", postgresql_ops={"labels": "jsonb_path_ops"}),
    Index("ix_jobs_unreleased", "last_seen_at", postgresql_where=text(UNRELEASED)),
    Index("ix_jobs_live", "next_dispatch_at", postgresql_where=text("status IN ('queued', 'running')")),
    Index("ix_jobs_finished_at_id", "finished_at", "id", postgresql_where=text("finished_at IS NOT NULL")),
    Index("ix_jobs_dead", "id", postgresql_where=text(DEAD_LETTER)),
)

steps = Table(
    "steps",
    metadata,
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("name", Text, primary_key=True),
    schema_version(),
    Column("ordinal", SmallInteger, nullable=False, server_default=text("0")),
    Column("status", Text, nullable=False, server_default=text("'queued'")),
    Column("progress", Double, nullable=False, server_default=text("0")),
    moment("started_at"),
    moment("finished_at"),
    CheckConstraint(one_of("status", JobState), name="status"),
    CheckConstraint(f"({_TERMINAL}) = (finished_at IS NOT NULL)", name="finished"),
    CheckConstraint("progress BETWEEN 0 AND 1", name="progress"),
)


def _step_reference() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["job_id", "step"], ["steps.job_id", "steps.name"], ondelete="CASCADE")


attempts = Table(
    "attempts",
    metadata,
    Column("job_id", Uuid, primary_key=True),
    Column("step", Text, primary_key=True),
    Column("attempt_id", Text, primary_key=True, comment="Pod UID, or the id a local runner drew"),
    schema_version(),
    Column("shard", SmallInteger, nullable=False),
    Column("number", Integer, nullable=False, comment="1 and up within the shard; lower numbers are fenced"),
    Column("status", Text, nullable=False, server_default=text("'running'")),
    Column("backend", Text, nullable=False),
    Column("runner", Text, nullable=False),
    Column("last_producer_seq", BigInteger, nullable=False, server_default=text("0")),
    Column("exit_code", Integer),
    Column("error_code", Text),
    Column("gpu", JSONB, comment="VRAM start, peak, end in MiB, and whether it came back clean (OR-001)"),
    moment("started_at", nullable=False),
    moment("finished_at"),
    _step_reference(),
    UniqueConstraint("job_id", "step", "shard", "number"),
    CheckConstraint(one_of("status", AttemptState), name="status"),
    CheckConstraint("(status <> 'running') = (finished_at IS NOT NULL)", name="finished"),
    CheckConstraint("number >= 1 AND shard >= 0 AND last_producer_seq >= 0", name="counters"),
)

items = Table(
    "items",
    metadata,
    Column("job_id", Uuid, primary_key=True),
    Column("step", Text, primary_key=True),
    Column("item_index", SmallInteger, primary_key=True),
    schema_version(),
    Column("status", Text, nullable=False),
    Column("progress", Double, nullable=False, server_default=text("0")),
    Column("seed", BigInteger),
    Column("attempt", Integer, nullable=False),
    moment("started_at"),
    moment("finished_at"),
    _step_reference(),
    CheckConstraint(one_of("status", ItemState), name="status"),
    CheckConstraint("progress BETWEEN 0 AND 1", name="progress"),
    CheckConstraint("seed BETWEEN 0 AND 4294967295", name="seed"),
    CheckConstraint("item_index BETWEEN 0 AND 99", name="item_index"),
)

events = Table(
    "events",
    metadata,
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    schema_version(),
    moment("ts", nullable=False),
    moment("received_at", now=True),
    Column("type", Text, nullable=False),
    Column("step", Text),
    Column("item_index", SmallInteger),
    Column("attempt", Integer),
    Column("attempt_id", Text),
    Column("producer_seq", BigInteger),
    Column("level", Text, nullable=False, server_default=text("'info'")),
    Column("code", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("payload", JSONB, nullable=False),
    CheckConstraint("seq >= 1", name="seq"),
    CheckConstraint(one_of("type", EventType), name="type"),
    CheckConstraint(one_of("level", Level), name="level"),
    Index(
        "uq_events_job_id_attempt_id_producer_seq",
        "job_id",
        "attempt_id",
        "producer_seq",
        unique=True,
        postgresql_where=text("producer_seq IS NOT NULL"),
    ),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("job_id", Uuid, nullable=False),
    Column("step", Text, nullable=False),
    Column("item_index", SmallInteger, nullable=False),
    schema_version(),
    Column("attempt", Integer, nullable=False),
    Column("format", Text, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("key", Text, nullable=False, unique=True),
    Column("metadata", JSONB, nullable=False),
    moment("created_at", now=True),
    _step_reference(),
    UniqueConstraint("job_id", "step", "item_index"),
    CheckConstraint("sha256 ~ '^[0-9a-f]{64}$'", name="sha256"),
    CheckConstraint("size_bytes >= 0 AND width > 0 AND height > 0", name="size"),
    CheckConstraint("format IN ('png', 'jpg')", name="format"),
)

models = Table(
    "models",
    metadata,
    Column("id", Text, primary_key=True),
    schema_version(),
    Column("slug", Text, Computed("split_part(id, '@', 1)", persisted=True)),
    Column("ordinal", BigInteger, Identity(), nullable=False),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("checkpoint_hash", Text),
    Column("source_uri", Text, nullable=False),
    Column("local_path", Text),
    Column("size_bytes", BigInteger),
    Column("installed", Boolean, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("parameters_schema", JSONB, nullable=False),
    Column("capabilities", JSONB, nullable=False),
    Column("folder", Text, comment="Below the models root; null for what does not lie there"),
    Column("files", JSONB, nullable=False, server_default=text("'[]'::jsonb")),
    Column("provenance", JSONB),
    Column("presets", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    moment("verified_at"),
    Column("problem", Text, comment="Why it is not installed"),
    moment("created_at", now=True),
    moment("updated_at", now=True),
    CheckConstraint("NOT installed OR kind = 'sketch' OR local_path IS NOT NULL", name="installed_path"),
)

#: What happened to models, oldest first. Kept when the model is removed; goes by its age.
model_events = Table(
    "model_events",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    schema_version(),
    moment("at", now=True),
    Column("model_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("detail", Text, nullable=False, server_default=text("''")),
    CheckConstraint(one_of("kind", ModelEvent), name="kind"),
    Index("ix_model_events_model_id_id", "model_id", "id"),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    schema_version(),
    Column("body_hash", Text, nullable=False),
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("answer", Text, nullable=False, comment="The first answer's body, as it was sent"),
    moment("created_at", nullable=False),
    moment("expires_at", nullable=False),
    Index("ix_idempotency_keys_expires_at", "expires_at"),
)
