"""The one place that names concrete classes for the API: from settings to :class:`~dreamforge_api.deps.Services`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from dreamforge.db.engine import open_async_engine
from dreamforge.storage.factory import open_storage
from dreamforge.storage.filesystem import FilesystemStore
from dreamforge.storage.settings import StorageSettings
from dreamforge_api import background
from dreamforge_api.bus import Bus
from dreamforge_api.database import Database
from dreamforge_api.deps import Services
from dreamforge_api.direct import DirectConnections
from dreamforge_api.health.readiness import Readiness
from dreamforge_api.health.snapshot import Snapshot
from dreamforge_api.jobs.admission import Admission
from dreamforge_api.jobs.service import JobService, Lifetimes
from dreamforge_api.models.catalog import Catalog
from dreamforge_api.progress.broadcaster import Broadcaster, StreamOptions
from dreamforge_api.settings import ApiSettings


def build(settings: ApiSettings, store: StorageSettings) -> Services:
    """Everything the routes need. Connects to nothing: parts that are away now may come later."""
    url, connections = settings.database_url.get_secret_value(), settings.database_pool_size
    database = Database(open_async_engine(url, pool_size=connections), DirectConnections(url, connections))
    bus = Bus(settings.redis_url.get_secret_value())
    storage = open_storage(store, signs=True)
    catalog = Catalog(database, settings.backend, settings.generate_model_path)
    admission = Admission(database, settings.max_queued)
    lifetimes = Lifetimes(
        timedelta(seconds=settings.job_deadline_seconds), timedelta(seconds=settings.idempotency_window_seconds)
    )
    streams = StreamOptions(
        settings.sse_max_streams,
        settings.sse_heartbeat_seconds,
        settings.sse_send_timeout_seconds,
        settings.sse_window_events,
        settings.sse_lag_events,
    )
    return Services(
        settings=settings,
        database=database,
        bus=bus,
        catalog=catalog,
        admission=admission,
        jobs=JobService(database, catalog, admission, bus, lifetimes),
        broadcaster=Broadcaster(database, bus, streams),
        storage=storage,
        files=storage if isinstance(storage, FilesystemStore) else None,
        link_seconds=store.presign_ttl_seconds,
        readiness=Readiness(database, bus, storage),
        snapshot=Snapshot(database, bus),
    )


@asynccontextmanager
async def running(services: Services) -> AsyncIterator[None]:
    """Do what goes on beside requests while the block runs."""
    tasks = [
        asyncio.create_task(services.broadcaster.run()),
        asyncio.create_task(background.every(1.0, services.admission.refresh, name="queue estimate")),
        asyncio.create_task(background.until_done(0.5, services.catalog.register, name="model registration")),
    ]
    try:
        yield
    finally:
        services.broadcaster.close()
        await background.cancel(tasks)
        await services.bus.close()
        await services.database.dispose()
