"""``GET /v1/jobs/{job_id}/logs``: the newest events as lines of NDJSON, oldest first."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request
from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from dreamforge.db import events, jobs
from dreamforge.errors import ErrorCode
from dreamforge_api import one_line, times
from dreamforge_api.deps import services
from dreamforge_api.logs.schemas import LogLine
from dreamforge_api.openapi_parts import problems
from dreamforge_api.parameters import JobIdText, SinceTs, Tail, job_id_of
from dreamforge_api.problem import not_found

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
MEDIA_TYPE = "application/x-ndjson"
_LINE = {"$ref": f"#/components/schemas/{LogLine.__name__}"}
_LINES = (
    '{"seq":1,"ts":"2026-11-20T12:00:00.000Z","level":"info","code":"job.running","message":"job running",'
    '"step":"generate","item_index":null,"attempt":1}\n'
)
#: Lines that are written between two looks at other requests.
_SLICE = 500


@router.get(
    "/{job_id}/logs",
    summary="Read a job's log",
    description="Every event of the job is a line. One JSON object a line, whatever text it holds.",
    response_class=Response,
    responses=problems(
        ErrorCode.INVALID_PARAMETER,
        ErrorCode.NOT_FOUND,
        ErrorCode.UNAVAILABLE,
        also={200: {"content": {MEDIA_TYPE: {"itemSchema": _LINE, "example": _LINES}}}},
    ),
)
async def read_logs(request: Request, job_id: JobIdText, tail: Tail = 1000, since_ts: SinceTs = None) -> Response:
    wanted = job_id_of(job_id)

    async def work(connection: AsyncConnection) -> Sequence[RowMapping] | None:
        found = (await connection.execute(events.tail(wanted, tail, since_ts))).mappings().all()
        if not found and (await connection.execute(jobs.by_id(wanted))).first() is None:
            return None
        return found

    rows = await services(request).database.run(work)
    if rows is None:
        raise not_found("There is no such job")
    return Response(await _ndjson(rows[::-1]), media_type=MEDIA_TYPE, headers={"cache-control": "no-store"})


async def _ndjson(rows: Sequence[RowMapping]) -> bytes:
    parts = []
    for begin in range(0, len(rows), _SLICE):
        parts.append(b"".join([one_line.encode(_line(row)) + b"\n" for row in rows[begin : begin + _SLICE]]))
        await asyncio.sleep(0)
    return b"".join(parts)


def _line(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        "seq": row["seq"],
        "ts": times.text(row["ts"]),
        "level": row["level"],
        "code": row["code"],
        "message": row["message"],
        "step": row["step"],
        "item_index": row["item_index"],
        "attempt": row["attempt"],
    }
