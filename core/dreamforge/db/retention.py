"""Statements of retention. Each removing one takes few rows, so that no lock is held for long.

Cut-offs of jobs are ages in hours of ``finished_at``, which only a terminal job has: a live one is never among them.
"""

from sqlalchemy import TextClause, text

from dreamforge.db.tables import DEAD_LETTER

#: One pass at a time in the whole installation. The session holds it: a transaction as long as a pass would keep
#: vacuum from its work.
LOCK: TextClause = text("SELECT pg_try_advisory_lock(:key)")
UNLOCK: TextClause = text("SELECT pg_advisory_unlock(:key)")

_PAST = "j.finished_at < now() - make_interval(secs => :hours * 3600.0) AND (j.finished_at, j.id) > (:since, :after)"
_IN_ORDER = "ORDER BY j.finished_at, j.id LIMIT :limit"

#: States and errors stay with the job: its outline, and what a stream needs to end right.
_REMOVABLE = "e.type NOT IN ('state', 'error')"


def _jobs(condition: str) -> TextClause:
    """``id, owner, finished_at`` of jobs past their age, later than the cursor (``since``, ``after``)."""
    return text(f"SELECT j.id, j.owner, j.finished_at FROM jobs j WHERE {_PAST} AND {condition} {_IN_ORDER}")


JOBS_WITH_ARTIFACTS = _jobs("EXISTS (SELECT 1 FROM artifacts a WHERE a.job_id = j.id)")
JOBS_WITH_EVENTS = _jobs(f"EXISTS (SELECT 1 FROM events e WHERE e.job_id = j.id AND {_REMOVABLE})")

#: Whole jobs. A key that may still be replayed keeps its job (I2); a dead letter waits for a person.
_MAY_GO = (
    "NOT EXISTS (SELECT 1 FROM idempotency_keys k WHERE k.job_id = j.id AND k.expires_at > now()) "
    f"AND NOT ({DEAD_LETTER})"
)
JOBS = _jobs(_MAY_GO)

REMOVE_ARTIFACTS: TextClause = text("""
DELETE FROM artifacts WHERE id IN (SELECT id FROM artifacts WHERE job_id = ANY(:jobs) LIMIT :limit)
RETURNING key, job_id
""")

REMOVE_EVENTS: TextClause = text(f"""
DELETE FROM events WHERE (job_id, seq) IN (
  SELECT e.job_id, e.seq FROM events e WHERE e.job_id = ANY(:jobs) AND {_REMOVABLE} LIMIT :limit)
""")

#: With what hangs on them; few per transaction, for a job may have a hundred items.
REMOVE_JOBS: TextClause = text(f"DELETE FROM jobs j WHERE id = ANY(:jobs) AND {_MAY_GO} RETURNING id")

REMOVE_KEYS: TextClause = text("""
DELETE FROM idempotency_keys WHERE (owner, key) IN (
  SELECT owner, key FROM idempotency_keys WHERE expires_at <= now() ORDER BY expires_at LIMIT :limit)
""")

#: Ids are in the order of time: only the oldest rows need a look, and no index on the time.
REMOVE_MODEL_EVENTS: TextClause = text("""
DELETE FROM model_events WHERE id IN (
  SELECT id FROM (SELECT id, at FROM model_events ORDER BY id LIMIT :limit) oldest
  WHERE at < now() - make_interval(secs => :hours * 3600.0))
""")

#: What a look at the store needs to know of the jobs its keys name.
JOBS_OF_OBJECTS: TextClause = text("SELECT id, finished_at IS NOT NULL AS ended FROM jobs WHERE id = ANY(:jobs)")
ARTIFACTS_OF_OBJECTS: TextClause = text("SELECT job_id, key FROM artifacts WHERE job_id = ANY(:jobs)")

_ALL_PAST = "j.finished_at < now() - make_interval(secs => :hours * 3600.0)"
COUNT_ARTIFACTS: TextClause = text(
    "SELECT count(*) AS rows, COALESCE(sum(a.size_bytes), 0) AS bytes "
    f"FROM jobs j JOIN artifacts a ON a.job_id = j.id WHERE {_ALL_PAST}"
)
COUNT_EVENTS: TextClause = text(
    f"SELECT count(*) AS rows FROM jobs j JOIN events e ON e.job_id = j.id WHERE {_ALL_PAST} AND {_REMOVABLE}"
)
COUNT_JOBS: TextClause = text(f"SELECT count(*) AS rows FROM jobs j WHERE {_ALL_PAST} AND {_MAY_GO}")
COUNT_MODEL_EVENTS: TextClause = text(
    "SELECT count(*) AS rows FROM model_events WHERE at < now() - make_interval(secs => :hours * 3600.0)"
)
COUNT_KEYS: TextClause = text("SELECT count(*) AS rows FROM idempotency_keys WHERE expires_at <= now()")
