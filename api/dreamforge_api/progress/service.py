"""The snapshot of a job's progress, from its row, its steps and its items."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from dreamforge.db import jobs
from dreamforge.jobs import ItemState
from dreamforge_api import times
from dreamforge_api.deps import Services
from dreamforge_api.jobs import resource

_UNTOUCHED = {"status": ItemState.PENDING.value, "progress": 0.0, "seed": None, "attempt": None}


async def snapshot(services: Services, job_id: UUID) -> dict[str, Any]:
    """Raises a 404 problem for an unknown job."""
    row, position = await services.jobs.row_and_position(job_id)

    async def work(connection: AsyncConnection) -> tuple[Sequence[RowMapping], Sequence[RowMapping]]:
        steps = (await connection.execute(jobs.steps_of(job_id))).mappings().all()
        items = (await connection.execute(jobs.items_of(job_id))).mappings().all()
        return steps, items

    steps, items = await services.database.run(work)
    return {
        "status": row["status"],
        "progress": row["progress"],
        "steps": [_step(step) for step in steps],
        "items": _items(items, row["count"]),
        "queue_position": position,
        "eta_seconds": resource.eta(row, await services.jobs.seconds_per_item(row)),
        "last_seq": row["last_seq"],
    }


def _step(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        "name": row["name"],
        "status": row["status"],
        "progress": row["progress"],
        "started_at": times.text_or_none(row["started_at"]),
        "finished_at": times.text_or_none(row["finished_at"]),
    }


def _items(rows: Sequence[Mapping[Any, Any]], count: int) -> list[dict[str, Any]]:
    """All ``count`` items; one without a row has not been touched."""
    touched = {row["item_index"]: row for row in rows}
    return [
        {"item_index": index} | {name: touched.get(index, _UNTOUCHED)[name] for name in _UNTOUCHED}
        for index in range(count)
    ]
