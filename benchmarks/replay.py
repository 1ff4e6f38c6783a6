"""S4: replay of a finished job's 10,000 events to one reader, against a loop that selects and encodes them."""

import time
from uuid import UUID

import psycopg
from pydantic_core import to_json

from benchmarks import plain_client
from benchmarks.api import real_api
from benchmarks.harness import Comparison, Result, compare
from benchmarks.stack import Servers
from dreamforge.db.engine import open_engine
from tests.jobs import create
from tests.servers.postgres import plain

EVENTS = 10_000
_FILL = """
INSERT INTO events (job_id, seq, ts, type, step, item_index, attempt, attempt_id, producer_seq, code, message,
                    payload)
SELECT %(job)s, seq, now(), CASE seq WHEN %(events)s THEN 'state' ELSE 'progress' END, 'generate', 0, 1, 'run-1', seq,
       'item.progress', '25%%', CASE seq WHEN %(events)s
       THEN '{"status": "succeeded", "previous": "running", "attempt": 1}'::jsonb
       ELSE jsonb_build_object('progress', seq / 10000.0, 'item_progress', seq / 10000.0, 'stage', 'denoising',
                               'step_index', seq, 'steps_total', 10000) END
FROM generate_series(1, %(events)s) AS seq;
UPDATE jobs SET status = 'succeeded', completed = count, last_seq = %(events)s, started_at = now(),
  finished_at = now() WHERE id = %(job)s
"""
_SELECT = "SELECT seq, ts, type, job_id, step, item_index, payload FROM events WHERE job_id = %s ORDER BY seq"


def _filled(servers: Servers, jobs: int) -> list[UUID]:
    engine = open_engine(servers.database_url)
    made = [create(engine) for _ in range(jobs)]
    engine.dispose()
    with psycopg.connect(plain(servers.database_url), autocommit=True) as connection:
        for job in made:
            psycopg.ClientCursor(connection).execute(_FILL, {"job": job, "events": EVENTS})
        connection.execute("VACUUM (ANALYZE) events")
    return made


def _bare(connection: psycopg.Connection, job: UUID) -> float:
    """Events a second; the bytes are the same as those of the stream, all at hand at the end."""
    began = time.perf_counter()
    parts = []
    for seq, ts, kind, job_id, step, item_index, payload in connection.execute(_SELECT, (job,)):
        body = {"seq": seq, "ts": ts, "job_id": job_id, "step": step, "item_index": item_index, **payload}
        parts.append(b"id: %d\nevent: %s\ndata: %s\n\n" % (seq, kind.encode(), to_json(body)))
    text = b"".join(parts)
    seconds = time.perf_counter() - began
    assert text.count(b"data: ") == EVENTS
    return EVENTS / seconds


def _ours(port: int, job: UUID) -> float:
    """Events a second of a job that nobody has read before."""
    events, seconds = plain_client.replay(port, job)
    assert events == EVENTS
    return EVENTS / seconds


def run(servers: Servers, pairs: int = 5) -> list[Result]:
    """Measure S4."""
    result = Comparison("S4", f"replay of {EVENTS} events against select and encode", "events/s", 0.5)
    first, *jobs = _filled(servers, pairs + 1)
    fresh, again = iter(jobs), iter(jobs)
    with (
        real_api(servers) as (_, port),
        psycopg.connect(plain(servers.database_url), autocommit=True) as connection,
    ):
        _ours(port, first), _bare(connection, first)
        compare(result, lambda: _ours(port, next(fresh)), lambda: _bare(connection, next(again)), pairs)
    return [result]
