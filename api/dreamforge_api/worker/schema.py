"""A worker waits for its tables: on those of an older release it would take good batches for bad ones."""

import threading

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from dreamforge import telemetry
from dreamforge_api import migrate

log = telemetry.logger("worker")
_LOOK_SECONDS = 0.5


def wait(engine: Engine, stop: threading.Event) -> None:
    """Return when the schema is one this code works with, or ``stop`` is set."""
    said = False
    while not stop.is_set() and not migrate.fits(found := _revision(engine)):
        if not said:
            log.info("waiting for the schema", found=found or "nothing", needed=migrate.head())
            said = True
        stop.wait(_LOOK_SECONDS)


def _revision(engine: Engine) -> str:
    """Empty where there is no schema, or no database to ask."""
    try:
        with engine.connect() as connection:
            return str(connection.execute(migrate.REVISION).scalar() or "")
    except DBAPIError:
        return ""
