"""A control loop to test: on a real Postgres, with the in-memory executor."""

from uuid import UUID

from prometheus_client import REGISTRY
from sqlalchemy import Engine, text

from dreamforge.db import jobs as job_statements
from dreamforge.spec import Limits
from dreamforge_api.execution.memory import MemoryExecutor
from dreamforge_api.worker.control import ControlLoop
from dreamforge_api.worker.policy import ControlPolicy
from dreamforge_api.worker.retry import RetryPolicy
from tests.jobs import rows


class Harness:
    """A loop, its executor, and what it announced."""

    def __init__(self, engine: Engine, executor: MemoryExecutor | None = None, **policy: float | int) -> None:
        self.engine = engine
        self.executor = executor or MemoryExecutor()
        self.announced: list[UUID] = []
        self.retry = RetryPolicy(first_delay=0.0, jitter=0.0, stop_delay=0.0)
        bounds = {"silence_seconds": 0.0, "cancel_seconds": 0.0, **policy}
        self.loop = ControlLoop(
            engine,
            self.executor,
            lambda job_id, seq: self.announced.append(job_id),
            policy=ControlPolicy(**bounds),  # type: ignore[arg-type]  # a test's shorthand
            retry=self.retry,
            limits=Limits(),
        )

    def job(self, job_id: UUID) -> dict[str, object]:
        return rows(self.engine, "SELECT * FROM jobs WHERE id = :id", id=job_id)[0]

    def cancel(self, job_id: UUID) -> None:
        with self.engine.begin() as connection:
            connection.execute(job_statements.REQUEST_CANCEL, {"job_id": job_id})


def make_due(harness: Harness) -> None:
    with harness.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE jobs SET next_dispatch_at = now()")


def age(harness: Harness, ids: list[UUID]) -> None:
    """They have been waiting for an hour."""
    with harness.engine.begin() as connection:
        statement = text("UPDATE jobs SET created_at = created_at - interval '1 h' WHERE id = ANY(:ids)")
        connection.execute(statement, {"ids": ids})


def counted(metric: str, **labels: str) -> float:
    """A counter of this process as it stands."""
    return REGISTRY.get_sample_value(metric, labels) or 0.0


def on_a_cluster(harness: Harness, **policy: float) -> Harness:
    executor = MemoryExecutor(retries_itself=True)
    executor.kind = "kubernetes"
    return Harness(harness.engine, executor, **policy)
