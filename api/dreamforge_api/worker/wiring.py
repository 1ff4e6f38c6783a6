"""Names the worker's concrete classes, once."""

import importlib
import threading
from dataclasses import dataclass
from datetime import timedelta

from redis import Redis
from sqlalchemy import Engine

from dreamforge.db.engine import open_engine
from dreamforge.models import checkpoint_descriptor
from dreamforge.spec import Limits
from dreamforge.storage.factory import open_storage
from dreamforge.transport.redis import connect
from dreamforge_api.execution.base import Executor
from dreamforge_api.execution.local import LocalExecutor
from dreamforge_api.worker.ages import Policy
from dreamforge_api.worker.announced import ModelRule
from dreamforge_api.worker.control import ControlLoop
from dreamforge_api.worker.listener import Listener
from dreamforge_api.worker.policy import ControlPolicy
from dreamforge_api.worker.queue import IngestQueue
from dreamforge_api.worker.registry_sync import RegistrySync
from dreamforge_api.worker.retention import Retention
from dreamforge_api.worker.retry import RetryPolicy
from dreamforge_api.worker.settings import WorkerSettings
from dreamforge_api.worker.signals import Signals, Waker
from dreamforge_api.worker.tasks import Ingestor

#: A runner on a cluster may be heard before its RenderJob is: so long after its first event its job may be unknown.
_UNKNOWN_FOR = timedelta(seconds=90)


@dataclass
class Worker:
    """The parts of one worker process."""

    engine: Engine
    redis: Redis
    stop: threading.Event
    control: ControlLoop
    waker: Waker
    ingestor: Ingestor
    listener: Listener | None
    queue: IngestQueue
    retention: Retention
    registry: RegistrySync | None


def executor_for(settings: WorkerSettings, redis: Redis) -> Executor:
    """The executor that ``DF_EXECUTOR`` names."""
    match settings.executor:
        case "local":
            return LocalExecutor(redis)
        case "kubernetes":
            # By name, so that a machine without a cluster never pays for the client (ADR 0007).
            kubernetes = importlib.import_module("dreamforge_api.execution.kubernetes")
            executor: Executor = kubernetes.KubernetesExecutor(
                kubernetes.Connection.open(settings.kubeconfig),
                settings.namespace,
                backoff_limit=settings.max_attempts - 1,
                queue=settings.kueue_queue,
            )
            return executor


def listener_for(
    settings: WorkerSettings, engine: Engine, signals: Signals, retry: RetryPolicy, stop: threading.Event
) -> Listener | None:
    """Who hears the operator, where there is a cluster."""
    if settings.executor != "kubernetes":
        return None
    checkpoint = settings.generate_model_path
    configured = None if checkpoint is None else checkpoint_descriptor(checkpoint).id
    rule = ModelRule(settings.runner_backend, configured)
    return Listener(engine, open_storage(settings), signals, rule, retry, stop)


def registry_sync_for(settings: WorkerSettings) -> RegistrySync | None:
    """Who compares the registry with the disk, where this process was told of models on it."""
    if settings.models_root is None and settings.generate_model_path is None:
        return None
    engine = open_engine(settings.database_url, pool_size=1)
    return RegistrySync(engine, settings.models_root, settings.generate_model_path)


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
            silence_seconds=settings.silence,
            queue_seconds=settings.queue_timeout_seconds,
            window=settings.window,
        ),
        retry=retry,
        limits=Limits(item_timeout_seconds=settings.item_timeout_seconds, grace_seconds=settings.grace_seconds),
    )
    unknown_for = _UNKNOWN_FOR if settings.executor == "kubernetes" else timedelta()
    ingestor = Ingestor(engine, signals, retry, stop, unknown_for)
    listener = listener_for(settings, engine, signals, retry, stop)
    # Connections of its own: a slow store must not hold those that ingest needs.
    retention = Retention(
        open_engine(settings.database_url, pool_size=2), open_storage(settings), Policy.of(settings)
    )
    queue = IngestQueue(redis, stop)
    registry = registry_sync_for(settings)
    return Worker(engine, redis, stop, control, Waker(redis), ingestor, listener, queue, retention, registry)
