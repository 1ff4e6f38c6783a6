"""Databases that look as if they had been in use: many finished jobs with their events, and a short queue.

Written by SQL in one go, because what is measured is reading from them and adding to them. Ids are UUIDv7s of their
``created_at``, so order and locality are those of real ids. Only the history grows: the queue, the running jobs and
the jobs with the label ``project=rare`` are as many at every size.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from benchmarks.stack import Servers
from dreamforge.models import SKETCH
from tests.servers.postgres import fresh_database, migrate, plain

EVENTS = 30
#: The newest jobs: so many wait, and so many before them run.
QUEUED, RUNNING = 100, 20
RARE, OLD = 40, 40
_GROWING = "jobs, steps, attempts, items, events, artifacts, idempotency_keys"

_JOBS = """
CREATE TEMP TABLE made ON COMMIT DROP AS
SELECT i, at, (lpad(to_hex(CAST(extract(epoch FROM at) * 1000 AS bigint)), 12, '0')
           || '7' || substr(md5(i::text), 1, 3) || '8' || substr(md5(i::text), 4, 15))::uuid AS id,
       CASE WHEN i > %(size)s - %(queued)s THEN 'queued' WHEN i > %(size)s - %(queued)s - %(running)s THEN 'running'
            WHEN i %% 10 < 8 THEN 'succeeded' WHEN i %% 10 = 8 THEN 'failed' ELSE 'canceled' END AS status
FROM (SELECT i, now() - make_interval(secs => 60 + (%(size)s - i) * 25.0) AS at
      FROM generate_series(1, %(size)s) AS i) AS numbers;
INSERT INTO jobs (id, type, provider, model_id, status, params, labels, count, completed, progress, attempt,
                  last_seq, correlation_id, error_code, error_message, error_retryable, created_at, started_at,
                  finished_at, deadline_at, dispatched_at, next_dispatch_at, last_seen_at, executor_kind)
SELECT id, 'generate', 'local-sdxl', CASE WHEN i %% 4 = 0 THEN 'sdxl-other' ELSE %(model)s END, status,
       jsonb_build_object('prompt', 'an old-growth forest at dawn, number ' || i, 'width', 1024, 'height', 1024,
                          'steps', 24, 'guidance', 7.0, 'format', 'png', 'count', 1),
       CASE WHEN i %% (%(size)s / %(rare)s) = 0 THEN '{"project": "rare"}'
            WHEN i <= %(old)s THEN '{"project": "old"}'
            WHEN i %% 10 = 0 THEN '{"project": "harbour"}'
            ELSE jsonb_build_object('request', md5(i::text)) END,
       1, CAST(status = 'succeeded' AS integer), CAST(status = 'succeeded' AS integer),
       CAST(status <> 'queued' AS integer),
       CASE status WHEN 'queued' THEN 0 WHEN 'running' THEN %(events)s - 1 ELSE %(events)s END, 'bench',
       CASE status WHEN 'failed' THEN 'item_timeout' END, CASE status WHEN 'failed' THEN 'too slow' END,
       CASE status WHEN 'failed' THEN false END, at, CASE WHEN status <> 'queued' THEN at + interval '2 s' END,
       CASE WHEN status NOT IN ('queued', 'running') THEN at + interval '9 s' END, at + interval '30 days',
       CASE WHEN status NOT IN ('queued', 'canceled') THEN at + interval '1 s' END, at,
       CASE WHEN status <> 'queued' THEN at + interval '1 s' END, CASE WHEN status <> 'queued' THEN 'local' END
FROM made;
INSERT INTO steps (job_id, name, status, progress, started_at, finished_at)
SELECT id, 'generate', status, CAST(status = 'succeeded' AS integer), at,
       CASE WHEN status NOT IN ('queued', 'running') THEN at + interval '9 s' END FROM made;
INSERT INTO attempts (job_id, step, attempt_id, shard, number, status, backend, runner, last_producer_seq,
                      started_at, finished_at)
SELECT id, 'generate', 'run-' || md5(i::text), 0, 1, CASE status WHEN 'running' THEN 'running'
       WHEN 'succeeded' THEN 'succeeded' WHEN 'failed' THEN 'failed' ELSE 'stopped' END, 'sketch', 'host-1',
       %(events)s, at, CASE WHEN status <> 'running' THEN at + interval '9 s' END FROM made WHERE status <> 'queued';
INSERT INTO items (job_id, step, item_index, status, progress, seed, attempt, started_at, finished_at)
SELECT id, 'generate', 0, status, CAST(status = 'succeeded' AS integer), i, 1, at + interval '2 s',
       CASE WHEN status <> 'running' THEN at + interval '9 s' END FROM made WHERE status <> 'queued';
INSERT INTO artifacts (id, job_id, step, item_index, attempt, format, width, height, seed, size_bytes, sha256, key,
                       metadata)
SELECT id, id, 'generate', 0, 1, 'png', 1024, 1024, i, 1500000, md5(i::text) || md5(i::text),
       'dreamforge/default/jobs/' || id || '/generate/' || i || '.png',
       jsonb_build_object('prompt', 'an old-growth forest at dawn', 'steps', 24) FROM made WHERE status = 'succeeded';
INSERT INTO idempotency_keys (owner, key, body_hash, job_id, answer, created_at, expires_at)
SELECT 'default', md5('key' || i), md5(i::text) || md5(i::text), id, repeat('{"id": "..."} ', 60), at,
       at + interval '28 days' FROM made WHERE i %% 3 = 0;
INSERT INTO events (job_id, seq, ts, type, step, item_index, attempt, attempt_id, producer_seq, code, message,
                    payload)
SELECT id, seq, at + make_interval(secs => seq * 0.25), kind, 'generate', 0, 1, 'run-' || md5(i::text), seq,
       'item.' || kind, seq || ' of %(events)s', CASE kind WHEN 'progress' THEN
       jsonb_build_object('progress', seq / %(events)s.0, 'item_progress', seq / %(events)s.0, 'stage', 'denoising',
                          'step_index', seq, 'steps_total', %(events)s)
       ELSE jsonb_build_object('status', made.status, 'previous', 'queued', 'attempt', 1) END
FROM made, LATERAL (SELECT seq, CASE WHEN seq IN (1, %(events)s) THEN 'state' ELSE 'progress' END AS kind
                    FROM generate_series(1, %(events)s) AS seq) AS numbered
WHERE made.status <> 'queued' AND (made.status <> 'running' OR seq < %(events)s);
"""

_NO_CHECKS = """
SELECT set_config('session_replication_role', 'replica', false) FROM pg_roles
WHERE rolname = current_user AND rolsuper
"""


def fill(url: str, size: int, events: int = EVENTS) -> None:
    """Write ``size`` jobs of ``events`` events into an empty database, and let Postgres know what it has now."""
    facts: dict[str, int | str] = {
        "size": size, "queued": QUEUED, "running": RUNNING, "rare": RARE, "old": OLD, "events": events,
        "model": SKETCH.id,
    }  # fmt: skip
    with psycopg.connect(plain(url), autocommit=True) as connection:
        # Foreign keys hold by construction; looking each of them up would take longer than all else.
        connection.execute(_NO_CHECKS)
        with connection.transaction():
            psycopg.ClientCursor(connection).execute(_JOBS, facts)
        connection.execute(f"VACUUM (ANALYZE) {_GROWING}")
        connection.execute("CHECKPOINT")


@contextmanager
def filled(servers: Servers, size: int) -> Iterator[str]:
    """The URL of a database with ``size`` jobs; dropped at the end."""
    with fresh_database(servers.database_url) as url:
        migrate(url)
        fill(url, size)
        yield url
