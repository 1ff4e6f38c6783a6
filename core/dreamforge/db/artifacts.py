"""Statements on artifacts: written once per (job, step, item) by ingest, read by everyone."""

from uuid import UUID

from sqlalchemy import Select, TextClause, select, text

from dreamforge.db.tables import artifacts


def of_job(job_id: UUID) -> Select[tuple[object, ...]]:
    """A job's artifacts by item."""
    return select(artifacts).where(artifacts.c.job_id == job_id).order_by(artifacts.c.step, artifacts.c.item_index)


#: The first artifact of an item wins; returns the item indexes whose rows were really written.
RECORD: TextClause = text("""
INSERT INTO artifacts (id, job_id, step, item_index, attempt, format, width, height, seed, size_bytes, sha256,
                       key, metadata)
SELECT id, :job_id, :step, item_index, :attempt, format, width, height, seed, size_bytes, sha256, key, metadata
FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(
  id uuid, item_index smallint, format text, width integer, height integer, seed bigint, size_bytes bigint,
  sha256 text, key text, metadata jsonb)
ON CONFLICT (job_id, step, item_index) DO NOTHING RETURNING item_index
""")
