"""Statements about jobs that a cluster tells of. ``LOCK`` comes first."""

from sqlalchemy import TextClause, text

from dreamforge.db.dispatch import ORDER

#: The job's row under its lock.
LOCK: TextClause = text("""
SELECT status, executor_kind, executor_ref, owner, model_id, params, created_at, correlation_id, count, completed,
       cancel_requested_at IS NOT NULL AS cancel_requested
FROM jobs WHERE id = :job_id FOR UPDATE
""")

#: A job that a person applied: dispatched already, so that the control loop never submits it. No row back: known.
REGISTER: TextClause = text("""
WITH job AS (
  INSERT INTO jobs (id, owner, type, provider, model_id, params, labels, warnings, count, correlation_id, created_at,
                    deadline_at, executor_kind, executor_ref, dispatched_at, last_seen_at)
  VALUES (:id, :owner, :type, :provider, :model_id, CAST(:params AS jsonb), CAST(:labels AS jsonb),
          CAST(:warnings AS jsonb), :count, :correlation_id, :created_at, :deadline_at, :executor_kind, :executor_ref,
          now(), now())
  ON CONFLICT (id) DO NOTHING RETURNING id)
INSERT INTO steps (job_id, name) SELECT id, :step FROM job RETURNING job_id
""")

#: What a cluster says of a job, once for each new reason; ``:source`` tells its words from a runner's.
REMARK: TextClause = text("""
WITH newest AS (
  SELECT code, message FROM events WHERE job_id = :job_id AND attempt_id = :source ORDER BY seq DESC LIMIT 1),
job AS (
  UPDATE jobs SET last_seq = last_seq + 1, last_seen_at = now()
  WHERE id = :job_id AND NOT EXISTS (SELECT 1 FROM newest WHERE code = :code AND message = :message)
  RETURNING id, last_seq, attempt)
INSERT INTO events (job_id, seq, ts, type, step, attempt, attempt_id, level, code, message, payload)
SELECT id, last_seq, :ts, 'log', :step, attempt, :source, :level, :code, :message,
       jsonb_build_object('level', CAST(:level AS text), 'code', CAST(:code AS text),
                          'message', CAST(:message AS text))
FROM job RETURNING seq
""")

#: Items whose image is recorded.
STORED_ITEMS: TextClause = text("SELECT item_index FROM artifacts WHERE job_id = :job_id AND step = :step")

#: A job that is not over, as the control loop would dispatch it.
OPEN_JOB: TextClause = text(f"{ORDER} WHERE id = :job_id AND status IN ('queued', 'running')")
