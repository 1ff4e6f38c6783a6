"""Bring the schema to head: ``python -m dreamforge_api.migrate``.

Safe to run from several processes at once (a Postgres advisory lock lets one of them work) and again (then it does
nothing). Downgrades are for people: ``--to REVISION``.
"""

import argparse
import sys
import time
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from pydantic import Field
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from dreamforge import settings, telemetry
from dreamforge.db.engine import open_engine
from dreamforge.errors import ConfigurationError

_LOCK = 0x0D_F0_47_6E  # any constant that no other program uses in this database
REVISION = text("SELECT version_num FROM alembic_version")


class MigrateSettings(settings.DfSettings):
    """What the migration needs to know."""

    database_url: str = Field(description="PostgreSQL, as postgresql://user:password@host:port/name.")
    log_level: str = Field("INFO", description="Least severe level that is logged.")


def _scripts() -> Path:
    """``migrations/`` of a checkout, or the copy a wheel carries inside this package."""
    here = Path(__file__).resolve()
    carried = here.parent / "migrations"
    return carried if carried.is_dir() else here.parents[2] / "migrations"


def config(url: str | None = None) -> Config:
    """Alembic's configuration, without an ini file."""
    made = Config()
    made.set_main_option("script_location", str(_scripts()).replace("%", "%%"))
    if url is not None:
        made.attributes["url"] = url
    return made


@cache
def head() -> str:
    """The newest revision this code knows."""
    revision = ScriptDirectory.from_config(config()).get_current_head()
    assert revision is not None  # noqa: S101 - there is always a baseline
    return revision


def fits(revision: str) -> bool:
    """Whether this code works on a schema of that revision (empty: there is none).

    One it does not know is the next release's, whose migrations leave this one working until it is replaced.
    """
    return bool(revision) and revision not in _outdated()


@cache
def _outdated() -> frozenset[str]:
    return frozenset(script.revision for script in ScriptDirectory.from_config(config()).walk_revisions()) - {head()}


def upgrade(url: str, to: str = "head") -> None:
    """Move the schema at ``url`` to ``to``, forward or back, under a lock."""
    engine = open_engine(url, pool_size=2, statement_timeout_ms=0)
    try:
        with engine.connect() as guard:
            guard.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _LOCK})
            guard.commit()
            try:
                move = command.downgrade if _is_back(guard, to) else command.upgrade
                move(config(url), to)
            finally:
                guard.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _LOCK})
                guard.commit()
    finally:
        engine.dispose()


def _is_back(guard: Connection, to: str) -> bool:
    """Whether ``to`` lies before the schema's revision: ``upgrade`` to such a one does nothing, and says nothing."""
    if to == "base" or to.startswith("-"):
        return True
    current = MigrationContext.configure(guard).get_current_revision()
    guard.commit()  # what is about to move the schema waits for nobody who only looked
    try:
        scripts = ScriptDirectory.from_config(config())
        target = scripts.get_revision(to)
        passed = [script.revision for script in scripts.iterate_revisions(current or "base", "base")]
    except CommandError:
        return False  # `upgrade` says what is wrong with it
    return target.revision in passed and target.revision != current


def upgrade_when_reachable(url: str, to: str, seconds: float) -> None:
    """The same for a database that may still be starting. Raises ``OperationalError`` when it is away for so long."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return upgrade(url, to)
        except OperationalError as error:
            if time.monotonic() >= deadline:
                raise
            telemetry.logger("migrate").warning("waiting for the database", cause=str(error.orig))
        time.sleep(1)


def main() -> int:
    """Exit 0 at head, 2 for a wrong setting, 3 when the database can't be reached."""
    parser = argparse.ArgumentParser(prog="python -m dreamforge_api.migrate", description=__doc__)
    parser.add_argument("--to", default="head", help="revision, `head`, `base` or `-1` (default: head)")
    parser.add_argument("--wait", type=float, default=0, help="seconds a database may take to come up (default: 0)")
    arguments = parser.parse_args()
    try:
        given = settings.load(MigrateSettings)
        telemetry.configure("migrate", given.log_level)
        upgrade_when_reachable(given.database_url, arguments.to, arguments.wait)
    except ConfigurationError as error:
        print(error, file=sys.stderr)  # noqa: T201 - a person's terminal
        return 2
    except OperationalError as error:
        cause = " ".join(str(error.orig).split())  # libpq writes several lines
        print(f"DF_DATABASE_URL: the database can't be reached: {cause}", file=sys.stderr)  # noqa: T201
        return 3
    telemetry.logger("migrate").info("schema is at its target", revision=arguments.to)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
