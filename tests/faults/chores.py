"""What leads to crash points that no load reaches: retention and dead letters, as a person starts them.

A chore makes its own work, dies once where it is told to, is started again, and leaves nothing behind.
"""

import subprocess
import sys
from collections.abc import Callable
from uuid import UUID, uuid4

import psycopg
import redis
from rq import Queue
from rq.serializers import JSONSerializer
from sqlalchemy import Engine, text

from dreamforge.crashpoints import CrashPoint
from dreamforge.db.engine import open_engine
from dreamforge.errors import ErrorCode
from dreamforge.events import Failure, Outcome
from dreamforge.transport import names
from dreamforge.transport.deadletters import DeadBatches
from dreamforge_api.worker.ingest import ingest_batch
from dreamforge_api.worker.retry import RetryPolicy
from tests.faults.stack import Stack
from tests.jobs import Runner, create
from tests.servers.stack import clean_environment, command, until

_MONTHS = (
    "UPDATE jobs SET created_at = created_at - interval '60 days', finished_at = finished_at - interval '60 days'"
)
_KILLED = -9


def retention(stack: Stack, point: CrashPoint) -> None:
    """A job past every age; the pass that removes it dies on the way, the next one finishes it."""
    job = stack.client.render(count=3, labels={"keyless": "yes"})
    with psycopg.connect(stack.settings["DF_DATABASE_URL"].replace("+psycopg", "", 1)) as connection:
        connection.execute(f"{_MONTHS} WHERE id = %s", (job["id"],))
    done = _run(stack, [sys.executable, "-m", "dreamforge_api.worker.retention"])
    assert stack.marks.victim(point), f"{done.returncode}: {done.stdout} {done.stderr}"
    assert stack.rows("SELECT 1 AS one FROM jobs WHERE id = %s", job["id"]), "the job goes last"
    stack.remove_orphans()
    assert stack.client.http.get(f"/v1/jobs/{job['id']}").status_code == 404
    assert stack.stored(job) == {}
    assert not (stack.folder(job) / "manifest.json").exists()


def requeue_job(stack: Stack, point: CrashPoint) -> None:
    """The command dies when the new job is made and nobody has been told; the job runs all the same, and alone."""
    engine = open_engine(stack.settings["DF_DATABASE_URL"], pool_size=1)
    job_id = create(engine, count=10, width=1024, height=1024, steps=2)  # longer than the fault takes
    with engine.begin() as connection:
        keyless = "UPDATE jobs SET labels = jsonb_build_object('keyless', 'yes') WHERE id = :id"
        connection.execute(text(keyless), {"id": job_id})
    _kill_its_runner(engine, job_id)
    engine.dispose()
    assert _requeue(stack, str(job_id)).returncode == _KILLED
    again = "SELECT id FROM jobs WHERE labels ->> 'requeued-from' = %s"
    [made] = stack.rows(again, str(job_id))
    stack.client.wait(str(made["id"]))
    assert _requeue(stack, str(job_id)).returncode == 2, "settled already"
    assert len(stack.rows(again, str(job_id))) == 1


def requeue_batch(stack: Stack, point: CrashPoint) -> None:
    """The command dies when a copy is on the queue: the letter is still there, and can be dealt with."""
    letters = DeadBatches(stack.redis_url)
    with redis.Redis.from_url(stack.redis_url) as connection:
        queue = Queue(names.EVENTS_QUEUE, connection=connection, serializer=JSONSerializer)
        queue.enqueue_call(names.INGEST_FUNCTION, args=("no batch at all",), job_id=uuid4().hex, failure_ttl=600)
    [letter] = until(lambda: letters.list(10), 60, "a dead letter")
    assert _requeue(stack, letter.id).returncode == _KILLED
    assert letter.id in {kept.id for kept in letters.list(10)}
    assert _requeue(stack, letter.id).returncode == 1, "refused again"
    for kept in letters.list(10):
        letters.drop(kept.id)
    letters.close()


def _kill_its_runner(engine: Engine, job_id: UUID) -> None:
    runner = Runner(job_id, f"run-{job_id}")
    failure = Failure(code=ErrorCode.HOST_OOM, message="137")
    batch = runner.batch(runner.started(), runner.gpu(), runner.finished(Outcome.FAILED, failure))
    ingest_batch(engine, batch, RetryPolicy(max_runner_losses=1))


def _requeue(stack: Stack, letter_id: str) -> "subprocess.CompletedProcess[str]":
    return _run(stack, command("dlq", "requeue", letter_id, "--data", stack.data, "--wait", "60"))


def _run(stack: Stack, argv: list[str]) -> "subprocess.CompletedProcess[str]":
    """A command of ours, as armed as every process of the system."""
    environment = clean_environment(**stack.settings)
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=120, check=False)


CHORES: dict[CrashPoint, Callable[[Stack, CrashPoint], None]] = {
    CrashPoint.RETENTION_ROWS_REMOVED: retention,
    CrashPoint.RETENTION_OBJECTS_REMOVED: retention,
    CrashPoint.DLQ_JOB_MADE: requeue_job,
    CrashPoint.DLQ_BATCH_QUEUED: requeue_batch,
}
