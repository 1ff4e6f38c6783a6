"""Statements on dead letters among jobs: those that failed because they kill their runner.

Nothing is copied: a dead letter *is* the failed job's row until a person has dealt with it (``dead_handled_at``).
A terminal state is absorbing, so a requeue makes a new job with the same request.
"""

from sqlalchemy import TextClause, text

from dreamforge.db.tables import DEAD_LETTER

_COLUMNS = "id, model_id, count, completed, failures, attempt, error_code, error_message, created_at, finished_at"

#: Unhandled dead jobs, newest first.
LIST: TextClause = text(f"SELECT {_COLUMNS} FROM jobs WHERE {DEAD_LETTER} ORDER BY id DESC LIMIT :limit")

COUNT: TextClause = text(f"SELECT count(*) FROM jobs WHERE {DEAD_LETTER}")

#: One unhandled dead job, with its attempts as JSON, oldest first. Prompts are not among the columns.
SHOW: TextClause = text(f"""
SELECT {_COLUMNS}, labels, correlation_id,
  (SELECT COALESCE(jsonb_agg(jsonb_build_object('number', number, 'attempt_id', attempt_id, 'runner', runner,
     'status', status, 'error_code', error_code, 'exit_code', exit_code, 'started_at', started_at,
     'finished_at', finished_at) ORDER BY shard, number), '[]'::jsonb)
   FROM attempts a WHERE a.job_id = jobs.id) AS attempts
FROM jobs WHERE id = :job_id AND {DEAD_LETTER}
""")

#: Make a new job (``:new_id``) of a dead one and mark that one handled, both or neither. No row back: the job is
#: not, or no longer, a dead letter; so two requeues at once make one job.
REQUEUE: TextClause = text(f"""
WITH dead AS (
  UPDATE jobs SET dead_handled_at = now() WHERE id = :job_id AND {DEAD_LETTER}
  RETURNING id, owner, type, provider, model_id, params, preset, labels, warnings, count, correlation_id,
            deadline_at - created_at AS lifetime),
job AS (
  INSERT INTO jobs (id, owner, type, provider, model_id, params, preset, labels, warnings, count, correlation_id,
                    created_at, deadline_at)
  SELECT :new_id, owner, type, provider, model_id, params, preset,
         labels || jsonb_build_object('requeued-from', CAST(id AS text)), warnings, count, correlation_id,
         now(), now() + lifetime
  FROM dead RETURNING id)
INSERT INTO steps (job_id, name, ordinal)
SELECT job.id, s.name, s.ordinal FROM job, dead JOIN steps s ON s.job_id = dead.id
RETURNING job_id
""")

#: A person has decided against the job. No row back: it is not, or no longer, a dead letter.
DROP: TextClause = text(f"UPDATE jobs SET dead_handled_at = now() WHERE id = :job_id AND {DEAD_LETTER} RETURNING id")
