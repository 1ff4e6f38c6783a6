"""Ended jobs that an executor still keeps something for: those of a cluster, beside the canceled ones

Revision 0004, after 0003. Must work with the previous release's code: add first,
remove a release later. (Without the index that goes, the old code's look-up is slower, not wrong.)
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_UNRELEASED = (
    "status IN ('canceled', 'failed', 'succeeded') AND dispatched_at IS NOT NULL "
    "AND (status = 'canceled' OR executor_kind = 'kubernetes')"
)


def upgrade() -> None:
    # Waiting for a lock blocks every query queued behind it: give up instead, and try again later.
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_index("ix_jobs_unreleased", "jobs", ["last_seen_at"], postgresql_where=sa.text(_UNRELEASED))
    op.drop_index("ix_jobs_cancel_untold", table_name="jobs")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_index(
        "ix_jobs_cancel_untold",
        "jobs",
        ["id"],
        postgresql_where=sa.text("status = 'canceled' AND dispatched_at IS NOT NULL"),
    )
    op.drop_index("ix_jobs_unreleased", table_name="jobs")
