"""Models on disk: files, provenance, presets and what is wrong; what happened to models; the preset of a job

Revision 0005, after 0004. Must work with the previous release's code: add first,
remove a release later.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_KINDS = "kind IN ('installed', 'not_installed', 'registered', 'removed', 'verified')"

_PRESET = "The versioned name of the preset that filled params in"
_FOLDER = "Below the models root; null for what does not lie there"
_PROBLEM = "Why it is not installed"


def upgrade() -> None:
    # Waiting for a lock blocks every query queued behind it: give up instead, and try again later.
    op.execute("SET LOCAL lock_timeout = '5s'")
    jsonb = postgresql.JSONB(astext_type=sa.Text())
    op.add_column("jobs", sa.Column("preset", sa.Text(), nullable=True, comment=_PRESET))
    op.add_column("models", sa.Column("slug", sa.Text(), sa.Computed("split_part(id, '@', 1)", persisted=True)))
    op.add_column("models", sa.Column("folder", sa.Text(), nullable=True, comment=_FOLDER))
    op.add_column("models", sa.Column("files", jsonb, server_default=sa.text("'[]'::jsonb"), nullable=False))
    op.add_column("models", sa.Column("provenance", jsonb, nullable=True))
    op.add_column("models", sa.Column("presets", jsonb, server_default=sa.text("'{}'::jsonb"), nullable=False))
    op.add_column("models", sa.Column("verified_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("models", sa.Column("problem", sa.Text(), nullable=True, comment=_PROBLEM))
    op.create_table(
        "model_events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("schema_version", sa.SmallInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.CheckConstraint(_KINDS, name=op.f("ck_model_events_kind")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_events")),
    )
    op.create_index("ix_model_events_model_id_id", "model_events", ["model_id", "id"])


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("model_events")
    for name in ("problem", "verified_at", "presets", "provenance", "files", "folder", "slug"):
        op.drop_column("models", name)
    op.drop_column("jobs", "preset")
