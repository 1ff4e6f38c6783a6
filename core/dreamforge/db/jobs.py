"""Statements on jobs and idempotency keys.

The writing ones are plain SQL with named parameters: each is one round trip that is correct on its own, guarded by
the state a job is in. ``FINISH`` is the only statement that ends a job.
"""

from collections.abc import Mapping, Sequence
from uuid import UUID

from sqlalchemy import ColumnElement, Select, TextClause, func, select, text

from dreamforge.db.tables import idempotency_keys, items, jobs, steps
from dreamforge.jobs import JobState, sources_of

_INSERT = """
INSERT INTO jobs (id, owner, type, provider, model_id, params, preset, labels, warnings, count, correlation_id,
                  created_at, deadline_at)
SELECT :id, :owner, :type, :provider, :model_id, CAST(:params AS jsonb), :preset, CAST(:labels AS jsonb),
       CAST(:warnings AS jsonb), :count, :correlation_id, :created_at, :deadline_at
"""

#: Job and step in one statement. Running it again with the same id changes nothing: safe after a lost COMMIT.
CREATE: TextClause = text(
    f"WITH job AS ({_INSERT} ON CONFLICT (id) DO NOTHING RETURNING id) "
    "INSERT INTO steps (job_id, name) SELECT id, :step FROM job RETURNING job_id"
)

#: The same with an idempotency key. Its one row is ``job_id, body_hash, answer`` of a key that is still valid, or the
#: new job's with two NULLs. No row: another request has just written this key, too late for this statement to see
#: (it waited for that one, up to the connection's lock_timeout); nothing was written here, and a look-up finds it.
CREATE_WITH_KEY: TextClause = text(
    "WITH stored AS ("
    "  SELECT job_id, body_hash, answer FROM idempotency_keys"
    "  WHERE owner = :owner AND key = :key AND expires_at > now()), "
    "claimed AS ("
    "  INSERT INTO idempotency_keys AS k (owner, key, body_hash, job_id, answer, created_at, expires_at)"
    "  SELECT :owner, :key, :body_hash, :id, :answer, :created_at, :expires_at"
    "  WHERE NOT EXISTS (SELECT 1 FROM stored)"
    "  ON CONFLICT (owner, key) DO UPDATE SET body_hash = excluded.body_hash, job_id = excluded.job_id,"
    "    answer = excluded.answer, created_at = excluded.created_at, expires_at = excluded.expires_at"
    "  WHERE k.expires_at <= now() RETURNING k.key), "
    f"job AS ({_INSERT} WHERE EXISTS (SELECT 1 FROM claimed) RETURNING id), "
    "step AS (INSERT INTO steps (job_id, name) SELECT id, :step FROM job RETURNING job_id) "
    "SELECT job_id, NULL AS body_hash, NULL AS answer FROM step UNION ALL SELECT * FROM stored"
)

_CANCEL_SOURCES = ", ".join(repr(str(state)) for state in sorted(sources_of(JobState.CANCELED)))

#: Ask a live job to stop; keeps the first time it was asked. No row back: unknown or already terminal.
REQUEST_CANCEL: TextClause = text(
    "UPDATE jobs SET cancel_requested_at = COALESCE(cancel_requested_at, now()) "
    f"WHERE id = :job_id AND status IN ({_CANCEL_SOURCES}) RETURNING status"
)

#: Take a job's row lock, before ``FINISH`` where others may write: a statement that itself waits for the lock would
#: not see items that were committed while it waited.
LOCK: TextClause = text("SELECT 1 FROM jobs WHERE id = :job_id FOR UPDATE")

#: The GPU verdict of an attempt that vanished (OR-001): that nothing is known. Its own words replace it if they come.
UNKNOWN_GPU = """COALESCE(attempts.gpu, jsonb_build_object('source', 'none', 'start_mib', NULL, 'peak_mib', NULL,
    'end_mib', NULL, 'clean', NULL, 'child_discarded', true))"""

#: End a job that is in one of ``sources``: job, step, open items and attempts, an ``error`` event when there is an
#: error, and the one terminal ``state`` event. No row back means the job was not in ``sources``.
#: An executor may keep something for a job whose ``submit`` was refused, not answered, or not noted by a worker that
#: died: it counts as dispatched, so that it is released. Nobody knows who was asked for a canceled one.
FINISH: TextClause = text(f"""
WITH old AS (SELECT id, status FROM jobs WHERE id = :job_id FOR UPDATE),
moved AS (
  UPDATE jobs SET status = :status, finished_at = now(),
    progress = CASE WHEN :status = 'succeeded' THEN 1 ELSE progress END,
    error_code = :error_code, error_message = :error_message,
    error_retryable = :error_retryable, error_item_index = :error_item_index,
    dispatched_at = CASE WHEN :status = 'canceled' OR executor_kind = 'kubernetes'
                         THEN COALESCE(dispatched_at, now()) ELSE dispatched_at END,
    last_seq = last_seq + CASE WHEN CAST(:error_code AS text) IS NULL THEN 1 ELSE 2 END
  FROM old WHERE jobs.id = old.id AND old.status = ANY(CAST(:sources AS text[]))
  RETURNING jobs.id, jobs.last_seq, jobs.attempt, old.status AS previous),
step AS (
  UPDATE steps SET status = :status, finished_at = now(),
    progress = CASE WHEN :status = 'succeeded' THEN 1 ELSE progress END
  FROM moved WHERE steps.job_id = moved.id AND steps.finished_at IS NULL),
item AS (
  UPDATE items SET status = :item_status, finished_at = now()
  FROM moved WHERE items.job_id = moved.id AND items.status IN ('pending', 'running')),
attempt AS (
  UPDATE attempts SET status = 'lost', finished_at = now(), gpu = {UNKNOWN_GPU}
  FROM moved WHERE attempts.job_id = moved.id AND attempts.status = 'running'),
failure AS (
  INSERT INTO events (job_id, seq, ts, type, step, item_index, attempt, level, code, message, payload)
  SELECT id, last_seq - 1, now(), 'error', :step, CAST(:error_item_index AS smallint), attempt, 'error',
         :error_code, :error_message,
         jsonb_build_object('code', CAST(:error_code AS text), 'message', CAST(:error_message AS text),
                            'retryable', CAST(:error_retryable AS boolean))
  FROM moved WHERE CAST(:error_code AS text) IS NOT NULL)
INSERT INTO events (job_id, seq, ts, type, step, attempt, level, code, message, payload)
SELECT id, last_seq, now(), 'state', :step, attempt, 'info', 'job.' || :status,
       'job ' || :status,
       jsonb_build_object('status', CAST(:status AS text), 'previous', previous, 'attempt', attempt)
FROM moved RETURNING seq
""")

#: Seconds from a job's creation to its end, or to now.
AGE: TextClause = text(
    "SELECT EXTRACT(epoch FROM COALESCE(finished_at, now()) - created_at) FROM jobs WHERE id = :job_id"
)


def finish_parameters(
    job_id: UUID,
    target: JobState,
    step: str,
    *,
    sources: frozenset[JobState] | None = None,
    error: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """Parameters of :data:`FINISH`. ``error`` has ``code, message, retryable, item_index`` and is given exactly
    when ``target`` is failed."""
    if (target is JobState.FAILED) != (error is not None):
        raise ValueError("a failed job has an error, and no other job has one")
    error = error or {}
    return {
        "job_id": job_id,
        "status": target.value,
        "item_status": target.value,
        "step": step,
        "sources": [state.value for state in sources or sources_of(target)],
        "error_code": error.get("code"),
        "error_message": error.get("message"),
        "error_retryable": error.get("retryable"),
        "error_item_index": error.get("item_index"),
    }


def by_id(job_id: UUID) -> Select[tuple[object, ...]]:
    """One job's row."""
    return select(jobs).where(jobs.c.id == job_id)


def page(
    *,
    limit: int,
    before: UUID | None = None,
    status: str | None = None,
    model_id: str | None = None,
    labels: Mapping[str, str] | None = None,
) -> Select[tuple[object, ...]]:
    """Newest first; keyset by id (UUIDv7). Ask for one row more than the page to know whether another follows."""
    query = select(jobs).order_by(jobs.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(jobs.c.id < before)
    if status is not None:
        query = query.where(jobs.c.status == status)
    if model_id is not None:
        query = query.where(jobs.c.model_id == model_id)
    if labels:
        query = query.where(jobs.c.labels.contains(dict(labels)))
    return query


def stored_answer(owner: str, key: str) -> Select[tuple[UUID, str, str]]:
    """``job_id, body_hash, answer`` of a key that is still valid."""
    k = idempotency_keys.c
    return select(k.job_id, k.body_hash, k.answer).where(k.owner == owner, k.key == key, k.expires_at > func.now())


def queued_ahead(job_id: ColumnElement[UUID] | UUID, cap: int = 10_000) -> Select[int]:
    """How many queued jobs stand before this one; counts no further than ``cap``."""
    ahead = select(jobs.c.id).where(jobs.c.status == JobState.QUEUED, jobs.c.id < job_id).limit(cap).subquery()
    return select(func.count()).select_from(ahead)


def queue_depth(cap: int) -> Select[int]:
    """How many jobs are queued; counts no further than ``cap``, so a long queue costs no more than a full one."""
    queued = select(jobs.c.id).where(jobs.c.status == JobState.QUEUED).limit(cap).subquery()
    return select(func.count()).select_from(queued)


def recent_item_seconds(model_id: str, limit: int = 20) -> Select[tuple[float | None]]:
    """Mean seconds per item over the model's newest finished items; NULL when there are none yet."""
    took = func.extract("epoch", items.c.finished_at - items.c.started_at)
    newest = (
        select(took.label("seconds"))
        .join(jobs, jobs.c.id == items.c.job_id)
        .where(jobs.c.model_id == model_id, items.c.status == "succeeded", items.c.started_at.is_not(None))
        .order_by(items.c.job_id.desc(), items.c.item_index.desc())
        .limit(limit)
        .subquery()
    )
    return select(func.avg(newest.c.seconds))


def steps_of(job_id: UUID) -> Select[tuple[object, ...]]:
    """The job's steps in order."""
    return select(steps).where(steps.c.job_id == job_id).order_by(steps.c.ordinal)


def items_of(job_id: UUID) -> Select[tuple[object, ...]]:
    """The items a runner has touched so far, in order; an item without a row is pending."""
    return select(items).where(items.c.job_id == job_id).order_by(items.c.item_index)


#: Jobs by status, oldest queued age in seconds: what ``/metrics`` shows. One pass over live rows only, plus
#: finished ones counted from the events that ended them being rare: an index-only count by status.
COUNT_BY_STATUS: TextClause = text("SELECT status, count(*) AS jobs FROM jobs GROUP BY status")
QUEUE_DELAY: TextClause = text(
    "SELECT COALESCE(EXTRACT(epoch FROM now() - min(created_at)), 0) AS seconds FROM jobs WHERE status = 'queued'"
)


def queue_positions(job_ids: Sequence[UUID], cap: int = 10_000) -> Select[tuple[object, ...]]:
    """``id, position`` (1 is next) of those jobs that are queued; ranks no further than ``cap``."""
    position = func.row_number().over(order_by=jobs.c.id).label("position")
    queued = select(jobs.c.id, position).where(jobs.c.status == JobState.QUEUED).order_by(jobs.c.id).limit(cap)
    ranked = queued.subquery()
    return select(ranked.c.id, ranked.c.position).where(ranked.c.id.in_(job_ids))
