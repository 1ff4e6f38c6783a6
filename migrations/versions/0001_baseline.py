"""Baseline: jobs, steps, attempts, items, events, artifacts, models, idempotency keys

Revision 0001, after nothing. Must work with the previous release's code: add first,
remove a release later.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Waiting for a lock blocks every query queued behind it: give up instead, and try again later.
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "jobs",
        sa.Column("id", sa.Uuid(), nullable=False, comment="UUIDv7: newest first is id descending"),
        sa.Column("schema_version", sa.SmallInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("owner", sa.Text(), server_default=sa.text("'default'"), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default=sa.text("'queued'"), nullable=False),
        sa.Column("params", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "labels", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column(
            "warnings", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'[]'::jsonb"), nullable=False
        ),
        sa.Column("count", sa.SmallInteger(), nullable=False),
        sa.Column("completed", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("progress", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "attempt", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="Highest attempt number"
        ),
        sa.Column(
            "failures", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="Attempts that count"
        ),
        sa.Column(
            "last_seq", sa.BigInteger(), server_default=sa.text("0"), nullable=False, comment="Newest events.seq"
        ),
        sa.Column("correlation_id", sa.Text(), nullable=False),
        sa.Column("executor_kind", sa.Text(), nullable=True),
        sa.Column("executor_ref", sa.Text(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("error_retryable", sa.Boolean(), nullable=True),
        sa.Column("error_item_index", sa.SmallInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("dispatched_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("next_dispatch_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(status = 'failed') = (error_code IS NOT NULL)", name=op.f("ck_jobs_error")),
        sa.CheckConstraint(
            "(status IN ('canceled', 'failed', 'succeeded')) = (finished_at IS NOT NULL)",
            name=op.f("ck_jobs_finished"),
        ),
        sa.CheckConstraint("status <> 'succeeded' OR completed = count", name=op.f("ck_jobs_succeeded_complete")),
        sa.CheckConstraint(
            "status IN ('canceled', 'failed', 'queued', 'running', 'succeeded')", name=op.f("ck_jobs_status")
        ),
        sa.CheckConstraint(
            "status NOT IN ('running', 'succeeded') OR started_at IS NOT NULL", name=op.f("ck_jobs_started")
        ),
        sa.CheckConstraint("completed BETWEEN 0 AND count", name=op.f("ck_jobs_completed")),
        sa.CheckConstraint("count BETWEEN 1 AND 100", name=op.f("ck_jobs_count")),
        sa.CheckConstraint("last_seq >= 0 AND attempt >= 0 AND failures >= 0", name=op.f("ck_jobs_counters")),
        sa.CheckConstraint("progress BETWEEN 0 AND 1", name=op.f("ck_jobs_progress")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
    )
    op.create_index(
        "ix_jobs_cancel_untold",
        "jobs",
        ["id"],
        unique=False,
        postgresql_where=sa.text("status = 'canceled' AND dispatched_at IS NOT NULL"),
    )
    op.create_index(
        "ix_jobs_labels",
        "jobs",
        ["labels"],
        unique=False,
        postgresql_using="gin",
        postgresql_ops={"labels": "jsonb_path_ops"},
    )
    op.create_index(
        "ix_jobs_live",
        "jobs",
        ["next_dispatch_at"],
        unique=False,
        postgresql_where=sa.text("status IN ('queued', 'running')"),
    )
    op.create_index("ix_jobs_model_id_id", "jobs", ["model_id", "id"], unique=False)
    op.create_index("ix_jobs_status_id", "jobs", ["status", "id"], unique=False)
    op.create_table(
        "models",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("schema_version", sa.SmallInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("ordinal", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("checkpoint_hash", sa.Text(), nullable=True),
        sa.Column("source_uri", sa.Text(), nullable=False),
        sa.Column("local_path", sa.Text(), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("installed", sa.Boolean(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("parameters_schema", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("capabilities", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "NOT installed OR kind = 'sketch' OR local_path IS NOT NULL", name=op.f("ck_models_installed_path")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_models")),
    )
    op.create_table(
        "events",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("schema_version", sa.SmallInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("ts", sa.DateTime(timezone=True), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("step", sa.Text(), nullable=True),
        sa.Column("item_index", sa.SmallInteger(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=True),
        sa.Column("attempt_id", sa.Text(), nullable=True),
        sa.Column("producer_seq", sa.BigInteger(), nullable=True),
        sa.Column("level", sa.Text(), server_default=sa.text("'info'"), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("payload", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.CheckConstraint("level IN ('debug', 'error', 'info', 'warning')", name=op.f("ck_events_level")),
        sa.CheckConstraint("type IN ('artifact', 'error', 'log', 'progress', 'state')", name=op.f("ck_events_type")),
        sa.CheckConstraint("seq >= 1", name=op.f("ck_events_seq")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_events_job_id_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "seq", name=op.f("pk_events")),
    )
    op.create_index(
        "uq_events_job_id_attempt_id_producer_seq",
        "events",
        ["job_id", "attempt_id", "producer_seq"],
        unique=True,
        postgresql_where=sa.text("producer_seq IS NOT NULL"),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("schema_version", sa.SmallInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("body_hash", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False, comment="The first answer's body, as it was sent"),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name=op.f("fk_idempotency_keys_job_id_jobs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("owner", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index("ix_idempotency_keys_expires_at", "idempotency_keys", ["expires_at"], unique=False)
    op.create_index(op.f("ix_idempotency_keys_job_id"), "idempotency_keys", ["job_id"], unique=False)
    op.create_table(
        "steps",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("schema_version", sa.SmallInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("ordinal", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("status", sa.Text(), server_default=sa.text("'queued'"), nullable=False),
        sa.Column("progress", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(status IN ('canceled', 'failed', 'succeeded')) = (finished_at IS NOT NULL)",
            name=op.f("ck_steps_finished"),
        ),
        sa.CheckConstraint(
            "status IN ('canceled', 'failed', 'queued', 'running', 'succeeded')", name=op.f("ck_steps_status")
        ),
        sa.CheckConstraint("progress BETWEEN 0 AND 1", name=op.f("ck_steps_progress")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_steps_job_id_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "name", name=op.f("pk_steps")),
    )
    op.create_table(
        "artifacts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("item_index", sa.SmallInteger(), nullable=False),
        sa.Column("schema_version", sa.SmallInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("metadata", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("format IN ('png', 'jpg')", name=op.f("ck_artifacts_format")),
        sa.CheckConstraint("sha256 ~ '^[0-9a-f]{64}$'", name=op.f("ck_artifacts_sha256")),
        sa.CheckConstraint("size_bytes >= 0 AND width > 0 AND height > 0", name=op.f("ck_artifacts_size")),
        sa.ForeignKeyConstraint(
            ["job_id", "step"],
            ["steps.job_id", "steps.name"],
            name=op.f("fk_artifacts_job_id_step_steps"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_artifacts")),
        sa.UniqueConstraint("job_id", "step", "item_index", name=op.f("uq_artifacts_job_id_step_item_index")),
        sa.UniqueConstraint("key", name=op.f("uq_artifacts_key")),
    )
    op.create_table(
        "attempts",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("attempt_id", sa.Text(), nullable=False, comment="Pod UID, or the id a local runner drew"),
        sa.Column("schema_version", sa.SmallInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("shard", sa.SmallInteger(), nullable=False),
        sa.Column(
            "number", sa.Integer(), nullable=False, comment="1 and up within the shard; lower numbers are fenced"
        ),
        sa.Column("status", sa.Text(), server_default=sa.text("'running'"), nullable=False),
        sa.Column("backend", sa.Text(), nullable=False),
        sa.Column("runner", sa.Text(), nullable=False),
        sa.Column("last_producer_seq", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column(
            "gpu",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="VRAM start, peak, end in MiB, and whether it came back clean (OR-001)",
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(status <> 'running') = (finished_at IS NOT NULL)", name=op.f("ck_attempts_finished")),
        sa.CheckConstraint(
            "status IN ('failed', 'lost', 'running', 'stopped', 'succeeded')", name=op.f("ck_attempts_status")
        ),
        sa.CheckConstraint(
            "number >= 1 AND shard >= 0 AND last_producer_seq >= 0", name=op.f("ck_attempts_counters")
        ),
        sa.ForeignKeyConstraint(
            ["job_id", "step"],
            ["steps.job_id", "steps.name"],
            name=op.f("fk_attempts_job_id_step_steps"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("job_id", "step", "attempt_id", name=op.f("pk_attempts")),
        sa.UniqueConstraint("job_id", "step", "shard", "number", name=op.f("uq_attempts_job_id_step_shard_number")),
    )
    op.create_table(
        "items",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("item_index", sa.SmallInteger(), nullable=False),
        sa.Column("schema_version", sa.SmallInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("progress", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('canceled', 'failed', 'pending', 'running', 'succeeded')", name=op.f("ck_items_status")
        ),
        sa.CheckConstraint("item_index BETWEEN 0 AND 99", name=op.f("ck_items_item_index")),
        sa.CheckConstraint("progress BETWEEN 0 AND 1", name=op.f("ck_items_progress")),
        sa.CheckConstraint("seed BETWEEN 0 AND 4294967295", name=op.f("ck_items_seed")),
        sa.ForeignKeyConstraint(
            ["job_id", "step"],
            ["steps.job_id", "steps.name"],
            name=op.f("fk_items_job_id_step_steps"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("job_id", "step", "item_index", name=op.f("pk_items")),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("items")
    op.drop_table("attempts")
    op.drop_table("artifacts")
    op.drop_table("steps")
    op.drop_index(op.f("ix_idempotency_keys_job_id"), table_name="idempotency_keys")
    op.drop_index("ix_idempotency_keys_expires_at", table_name="idempotency_keys")
    op.drop_table("idempotency_keys")
    op.drop_index(
        "uq_events_job_id_attempt_id_producer_seq",
        table_name="events",
        postgresql_where=sa.text("producer_seq IS NOT NULL"),
    )
    op.drop_table("events")
    op.drop_table("models")
    op.drop_index("ix_jobs_status_id", table_name="jobs")
    op.drop_index("ix_jobs_model_id_id", table_name="jobs")
    op.drop_index("ix_jobs_live", table_name="jobs", postgresql_where=sa.text("status IN ('queued', 'running')"))
    op.drop_index(
        "ix_jobs_labels", table_name="jobs", postgresql_using="gin", postgresql_ops={"labels": "jsonb_path_ops"}
    )
    op.drop_index(
        "ix_jobs_cancel_untold",
        table_name="jobs",
        postgresql_where=sa.text("status = 'canceled' AND dispatched_at IS NOT NULL"),
    )
    op.drop_table("jobs")
