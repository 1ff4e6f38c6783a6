"""Dead letters among jobs, and an index by age for retention

Revision 0002, after 0001. Must work with the previous release's code: add first,
remove a release later.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Waiting for a lock blocks every query queued behind it: give up instead, and try again later.
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("jobs", sa.Column("dead_handled_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_jobs_finished_at_id",
        "jobs",
        ["finished_at", "id"],
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    )
    op.create_index(
        "ix_jobs_dead",
        "jobs",
        ["id"],
        postgresql_where=sa.text(
            "status = 'failed' AND error_code IN ('host_oom', 'runner_lost') AND dead_handled_at IS NULL"
        ),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_index("ix_jobs_dead", table_name="jobs")
    op.drop_index("ix_jobs_finished_at_id", table_name="jobs")
    op.drop_column("jobs", "dead_handled_at")
