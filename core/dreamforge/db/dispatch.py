"""Statements of the control loop. Those that take rows lock them and skip what another loop holds."""

from sqlalchemy import TextClause, text

from dreamforge.db.jobs import UNKNOWN_GPU
from dreamforge.db.tables import UNRELEASED as UNRELEASED_WHERE

#: Of a job, all that its runner is told. ``seeds`` are what earlier attempts drew: an item keeps the one it has.
ORDER = """
SELECT id, owner, created_at, deadline_at, correlation_id, model_id, params,
       (SELECT jsonb_object_agg(item_index, seed) FROM items WHERE job_id = jobs.id AND seed IS NOT NULL) AS seeds,
       (SELECT jsonb_build_object('name', name, 'kind', kind, 'version', version, 'local_path', local_path,
                                  'checkpoint_hash', checkpoint_hash, 'size_bytes', size_bytes,
                                  'folder', folder, 'files', files)
        FROM models WHERE models.id = jobs.model_id) AS model
FROM jobs
"""

#: Live jobs whose turn it is: the job row is the outbox. Oldest first, as many as may wait for a runner beside those
#: that do.
TAKE_UNDISPATCHED: TextClause = text(f"""
{ORDER}
WHERE status IN ('queued', 'running') AND dispatched_at IS NULL AND cancel_requested_at IS NULL
  AND next_dispatch_at <= now()
ORDER BY id
LIMIT greatest(0, least(
    :limit, :window - (SELECT count(*) FROM jobs WHERE status = 'queued' AND dispatched_at IS NOT NULL)))
FOR UPDATE SKIP LOCKED
""")

MARK_DISPATCHED: TextClause = text("""
UPDATE jobs SET dispatched_at = now(), last_seen_at = now(), executor_kind = :kind, executor_ref = :ref
WHERE id = :job_id
""")

#: A job that the executor would not take: it is asked again ever more rarely, so that it is in nobody's way. It may
#: have kept something all the same, so the row says who was asked.
DEFER: TextClause = text("""
UPDATE jobs SET executor_kind = :kind,
  next_dispatch_at = now() + LEAST(interval '30 s', (now() - COALESCE(last_seen_at, created_at)) / 10)
WHERE id = :job_id
""")

#: A job that the control loop ends. Its executor may have been asked by a worker that died before it could say so.
OFFERED: TextClause = text("UPDATE jobs SET executor_kind = :kind WHERE id = :job_id AND executor_kind IS NULL")

#: Live jobs whose cancel was asked; ``asked_seconds`` ago.
CANCELS: TextClause = text("""
SELECT id, executor_ref AS ref, EXTRACT(epoch FROM now() - cancel_requested_at) AS asked_seconds,
       dispatched_at IS NOT NULL AS dispatched
FROM jobs WHERE status IN ('queued', 'running') AND cancel_requested_at IS NOT NULL ORDER BY cancel_requested_at
""")

#: Ended jobs that the executor may keep something for: those it must still be told to stop, and a cluster's.
#: The one that was looked at longest ago comes first.
UNRELEASED: TextClause = text(f"""
SELECT id, status, error_code, executor_ref AS ref, EXTRACT(epoch FROM now() - finished_at) AS ended_seconds
FROM jobs
WHERE {UNRELEASED_WHERE} AND (last_seen_at IS NULL OR status = 'canceled'
       OR last_seen_at < now() - make_interval(secs => :pause))
ORDER BY last_seen_at NULLS FIRST LIMIT :limit
""")
MARK_RELEASED: TextClause = text(f"UPDATE jobs SET dispatched_at = NULL WHERE id = :job_id AND {UNRELEASED_WHERE}")

#: Dispatched jobs that nobody has heard of for ``silence`` seconds.
SILENT: TextClause = text("""
SELECT id, status, executor_ref AS ref FROM jobs
WHERE status IN ('queued', 'running') AND dispatched_at IS NOT NULL
  AND GREATEST(dispatched_at, last_seen_at) < now() - make_interval(secs => :silence)
ORDER BY id LIMIT :limit
""")

SEEN: TextClause = text("UPDATE jobs SET last_seen_at = now() WHERE id = :job_id")

#: The job's row under its lock, if it is still live and still silent: the guard of everything done about silence.
LOCK_SILENT: TextClause = text("""
SELECT status, failures, attempt, completed, count AS item_count, last_seq,
       cancel_requested_at IS NOT NULL AS cancel_requested
FROM jobs WHERE id = :job_id AND status IN ('queued', 'running') AND dispatched_at IS NOT NULL
  AND GREATEST(dispatched_at, last_seen_at) < now() - make_interval(secs => :silence) FOR UPDATE
""")

LOSE_ATTEMPTS: TextClause = text(f"""
UPDATE attempts SET status = 'lost', finished_at = now(), error_code = 'runner_lost', gpu = {UNKNOWN_GPU}
WHERE job_id = :job_id AND status = 'running'
""")

#: One log event of the control loop's own.
NOTE: TextClause = text("""
WITH job AS (UPDATE jobs SET last_seq = last_seq + 1 WHERE id = :job_id RETURNING id, last_seq, attempt)
INSERT INTO events (job_id, seq, ts, type, step, attempt, level, code, message, payload)
SELECT id, last_seq, now(), 'log', :step, attempt, :level, :code, :message,
       jsonb_build_object('level', CAST(:level AS text), 'code', CAST(:code AS text),
                          'message', CAST(:message AS text))
FROM job RETURNING seq
""")

OVERDUE: TextClause = text("""
SELECT id, executor_ref AS ref FROM jobs
WHERE status IN ('queued', 'running') AND deadline_at < now() ORDER BY id LIMIT :limit
""")

#: Jobs that nobody took within ``seconds``.
QUEUED_TOO_LONG: TextClause = text("""
SELECT id, executor_ref AS ref FROM jobs
WHERE status = 'queued' AND created_at < now() - make_interval(secs => :seconds)
ORDER BY id LIMIT :limit
""")
