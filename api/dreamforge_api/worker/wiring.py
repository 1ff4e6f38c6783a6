"""Names the worker's concrete classes, once."""

import threading
from dataclasses import dataclass

from redis import Redis
from sqlalchemy import Engine

from dreamforge.db.engine import open_engine
from dreamforge.spec import Limits
from dreamforge.storage.factory import open_storage
from dreamforge.transport.redis import connect
from dreamforge_api.execution.base import Executor
from dreamforge_api.execution.local import LocalExecutor
from dreamforge_api.worker.control import ControlLoop, ControlPolicy
from dreamforge_api.worker.queue import IngestQueue
from dreamforge_api.worker.retention import Policy, Retention
from dreamforge_api.worker.retry import RetryPolicy
from dreamforge_api.worker.settings import WorkerSettings
from dreamforge_api.worker.signals import Signals, Waker
from dreamforge_api.worker.tasks import Ingestor


@dataclass
class Worker:
    """The parts of one worker process."""

    engine: Engine
    redis: Redis
    stop: threading.Event
    control: ControlLoop
    waker: Waker
    ingestor: Ingestor
    queue: IngestQueue
    retention: Retention


def executor_for(settings: WorkerSettings, redis: Redis) -> Executor:
    """The executor that ``DF_EXECUTOR`` names."""
    match settings.executor:
        case "local":
            return LocalExecutor(redis)


def build(settings: WorkerSettings) -> Worker:
    """Put the worker together; connects to nothing yet."""
    stop = threading.Event()
    engine = open_engine(settings.database_url, pool_size=4)
    redis = connect(settings.redis_url)
    signals = Signals(redis)
    retry = RetryPolicy(max_attempts=settings.max_attempts, max_runner_losses=settings.max_runner_losses)
    control = ControlLoop(
        engine,
        executor_for(settings, redis),
        signals.announce,
        policy=ControlPolicy(
            silence_seconds=settings.silence_seconds,
            queue_seconds=settings.queue_timeout_seconds,
            window=settings.dispatch_window,
        ),
        retry=retry,
        limits=Limits(item_timeout_seconds=settings.item_timeout_seconds, grace_seconds=settings.grace_seconds),
    )
    ingestor = Ingestor(engine, signals, retry, stop)
    # Connections of its own: a slow store must not hold those that ingest needs.
    retention = Retention(
        open_engine(settings.database_url, pool_size=2), open_storage(settings), Policy.of(settings)
    )
    queue = IngestQueue(redis, stop)
    return Worker(engine, redis, stop, control, Waker(redis), ingestor, queue, retention)
