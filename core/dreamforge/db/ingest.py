"""Statements ingest runs inside one transaction for one batch of events. ``LOCK_JOB`` comes first."""

from sqlalchemy import TextClause, text

from dreamforge.db.jobs import UNKNOWN_GPU

#: The job's row under its lock.
LOCK_JOB: TextClause = text("""
SELECT j.id, j.status, j.count AS item_count, j.completed, j.progress, j.failures, j.last_seq,
       j.started_at, j.created_at, j.cancel_requested_at IS NOT NULL AS cancel_requested,
       CAST(j.params ->> 'steps' AS integer) AS steps_total,
       (SELECT kind FROM models m WHERE m.id = j.model_id) AS model_kind, j.executor_kind
FROM jobs j WHERE j.id = :job_id FOR UPDATE OF j
""")

#: The step's items as JSON, how many other shards ended well, and where the attempt stands: its number (NULL for a
#: new one), the shard's highest, the last event it had committed. A statement of its own: one that waited for the
#: job's lock would still see the other tables as they were before it waited.
STANDING: TextClause = text("""
SELECT (SELECT COALESCE(jsonb_agg(to_jsonb(i)), '[]'::jsonb) FROM items i
        WHERE i.job_id = :job_id AND i.step = :step) AS item_rows,
       (SELECT count(DISTINCT shard) FROM attempts
        WHERE job_id = :job_id AND step = :step AND status = 'succeeded' AND shard <> :shard) AS other_shards_done,
       max(number) AS newest,
       max(number) FILTER (WHERE attempt_id = :attempt_id) AS number,
       max(last_producer_seq) FILTER (WHERE attempt_id = :attempt_id) AS last_producer_seq
FROM attempts WHERE job_id = :job_id AND step = :step AND shard = :shard
""")

#: Give a new attempt its number and close the ones it replaces.
REGISTER_ATTEMPT: TextClause = text(f"""
WITH replaced AS (
  UPDATE attempts SET status = 'lost', finished_at = now(), gpu = {UNKNOWN_GPU}
  WHERE job_id = :job_id AND step = :step AND shard = :shard AND status = 'running')
INSERT INTO attempts (attempt_id, job_id, step, shard, number, backend, runner, started_at)
VALUES (:attempt_id, :job_id, :step, :shard, :number, :backend, :runner, :started_at)
""")

#: Write the items a batch touched. A stored item never goes back; a seed stands until a newer attempt draws one.
UPSERT_ITEMS: TextClause = text("""
INSERT INTO items AS i (job_id, step, item_index, status, progress, seed, attempt, started_at, finished_at)
SELECT :job_id, :step, item_index, status, progress, seed, attempt, started_at, finished_at
FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(
  item_index smallint, status text, progress double precision, seed bigint, attempt integer,
  started_at timestamptz, finished_at timestamptz)
ON CONFLICT (job_id, step, item_index) DO UPDATE SET status = excluded.status, progress = excluded.progress,
  seed = excluded.seed, attempt = excluded.attempt, started_at = excluded.started_at,
  finished_at = excluded.finished_at
WHERE i.status <> 'succeeded'
""")

#: Move job, step and attempt forward by one batch.
ADVANCE: TextClause = text("""
WITH job AS (
  UPDATE jobs SET status = :status, started_at = :started_at, progress = :progress, completed = :completed,
    attempt = GREATEST(attempt, :attempt), last_seq = :last_seq, last_seen_at = now()
  WHERE id = :job_id),
step AS (
  UPDATE steps SET status = :status, started_at = COALESCE(started_at, :started_at), progress = :progress
  WHERE job_id = :job_id AND name = :step)
UPDATE attempts SET last_producer_seq = :producer_seq, gpu = COALESCE(CAST(:gpu AS jsonb), gpu),
  status = COALESCE(CAST(:attempt_status AS text), status), exit_code = :exit_code, error_code = :error_code,
  finished_at = CASE WHEN CAST(:attempt_status AS text) IS NULL THEN finished_at ELSE now() END
WHERE job_id = :job_id AND step = :step AND attempt_id = :attempt_id
""")

#: An attempt whose job is over may still leave its GPU verdict (OR-001).
RECORD_GPU: TextClause = text("""
UPDATE attempts SET gpu = CAST(:gpu AS jsonb)
WHERE job_id = :job_id AND step = :step AND attempt_id = :attempt_id
""")

#: Hand the job back to the outbox; a cluster starts its next attempt by itself.
DISPATCH_AGAIN: TextClause = text("""
UPDATE jobs SET failures = failures + CAST(:counted AS integer),
  dispatched_at = CASE WHEN executor_kind = 'kubernetes' THEN dispatched_at END,
  next_dispatch_at = now() + make_interval(secs => :delay)
WHERE id = :job_id AND status IN ('queued', 'running')
""")
