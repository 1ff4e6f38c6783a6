"""What the routes work with: built once by ``wiring``, kept on the application."""

from dataclasses import dataclass
from typing import cast

from fastapi import Request

from dreamforge.storage.base import Storage
from dreamforge.storage.filesystem import FilesystemStore
from dreamforge_api.bus import Bus
from dreamforge_api.database import Database
from dreamforge_api.health.readiness import Readiness
from dreamforge_api.health.snapshot import Snapshot
from dreamforge_api.jobs.admission import Admission
from dreamforge_api.jobs.service import JobService
from dreamforge_api.models.catalog import Catalog
from dreamforge_api.progress.broadcaster import Broadcaster
from dreamforge_api.settings import ApiSettings


@dataclass(frozen=True)
class Services:
    """Everything a request may need."""

    settings: ApiSettings
    database: Database
    bus: Bus
    catalog: Catalog
    admission: Admission
    jobs: JobService
    broadcaster: Broadcaster
    storage: Storage
    #: The same store when it keeps files: then this process serves them.
    files: FilesystemStore | None
    link_seconds: int
    readiness: Readiness
    snapshot: Snapshot


def services(request: Request) -> Services:
    return cast("Services", request.app.state.services)
