"""Objects that no row names: left by a crash between a row and its object, or by an attempt that came too late.

An object is an orphan when its job is unknown, or has ended without an artifact row for it. Objects of a live job
never are: a runner reports an image after it has stored it.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Engine

from dreamforge.db import retention
from dreamforge.keys import manifest_key
from dreamforge.storage.base import ObjectInfo, Storage

_ROOT = "dreamforge/"
_BATCH = 200


class _Found(NamedTuple):
    key: str
    size_bytes: int
    user: str
    job_id: UUID
    step: str


def orphans(engine: Engine, storage: Storage, older_than: datetime) -> Iterator[_Found]:
    """Every orphan last written before ``older_than``. Raises ``StorageError`` and what SQLAlchemy raises."""
    listed = iter(_of_jobs(storage.list(_ROOT), older_than))
    while batch := list(islice(listed, _BATCH)):
        yield from _unnamed(engine, batch)


def _of_jobs(objects: Iterable[ObjectInfo], older_than: datetime) -> Iterator[_Found]:
    """Those below ``dreamforge/<user>/jobs/<id>/<step>/``; everything else in the store is not ours to judge."""
    for info in objects:
        parts = info.key.split("/")
        if len(parts) < 6 or parts[2] != "jobs" or info.modified_at is None or info.modified_at >= older_than:
            continue
        try:
            job_id = UUID(parts[3])
        except ValueError:
            continue
        yield _Found(info.key, info.size_bytes, parts[1], job_id, parts[4])


def _unnamed(engine: Engine, batch: list[_Found]) -> list[_Found]:
    jobs = {"jobs": list({found.job_id for found in batch})}
    with engine.connect() as connection:
        # The jobs first: one that ends in between counts as live still.
        ended = {row.id: row.ended for row in connection.execute(retention.JOBS_OF_OBJECTS, jobs)}
        named = {row.key: row.job_id for row in connection.execute(retention.ARTIFACTS_OF_OBJECTS, jobs)}
    with_images = set(named.values())

    def is_orphan(found: _Found) -> bool:
        if found.job_id not in ended:
            return True
        if not ended[found.job_id] or found.key in named:
            return False
        is_manifest = found.key == manifest_key(found.job_id, found.step, found.user)
        return not (is_manifest and found.job_id in with_images)

    return [found for found in batch if is_orphan(found)]
