"""An index for pages of jobs by model and status

Revision 0003, after 0002. Must work with the previous release's code: add first,
remove a release later.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Waiting for a lock blocks every query queued behind it: give up instead, and try again later.
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_index("ix_jobs_model_id_status_id", "jobs", ["model_id", "status", "id"])


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_index("ix_jobs_model_id_status_id", table_name="jobs")
