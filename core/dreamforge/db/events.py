"""Statements on events: read in ``seq`` order, which is commit order for one job."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Select, TextClause, select, text

from dreamforge.db.tables import events


def after(job_id: UUID, seq: int, limit: int) -> Select[tuple[object, ...]]:
    """Events later than ``seq``, oldest first."""
    return select(events).where(events.c.job_id == job_id, events.c.seq > seq).order_by(events.c.seq).limit(limit)


def tail(job_id: UUID, limit: int, since: datetime | None = None) -> Select[tuple[object, ...]]:
    """The newest ``limit`` events, newest first; ``since`` filters on the time a runner gave the event."""
    query = select(events).where(events.c.job_id == job_id).order_by(events.c.seq.desc()).limit(limit)
    return query if since is None else query.where(events.c.ts >= since)


#: Append rows given as one JSON array (``:rows``): parsing on the server costs less than binding each value.
APPEND: TextClause = text("""
INSERT INTO events (job_id, seq, ts, type, step, item_index, attempt, attempt_id, producer_seq,
                    level, code, message, payload)
SELECT :job_id, seq, ts, type, :step, item_index, attempt, attempt_id, producer_seq, level, code, message, payload
FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(
  seq bigint, ts timestamptz, type text, item_index smallint, attempt integer, attempt_id text,
  producer_seq bigint, level text, code text, message text, payload jsonb)
ON CONFLICT DO NOTHING
""")
