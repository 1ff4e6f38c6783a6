"""``/v1/jobs/{job_id}/progress`` and its stream."""

from fastapi import APIRouter, Request
from pydantic_core import to_json
from starlette.responses import Response

from dreamforge.errors import ErrorCode
from dreamforge_api.deps import services
from dreamforge_api.openapi_parts import problems
from dreamforge_api.parameters import MAX_SEQ, JobIdText, job_id_of, resume_from
from dreamforge_api.progress import service
from dreamforge_api.progress.events import FRAME
from dreamforge_api.progress.schemas import JobProgress
from dreamforge_api.progress.stream import EventStream

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_STREAM = """Server-sent events. `id` is the event's `seq` within the job, `event` is one of `state`, `progress`,
`log`, `artifact`, `error`, `end`; `data` is one line of JSON with `seq`, `ts`, `job_id`, `step`, `item_index` and:

| event | more fields |
|---|---|
| `state` | `status`, `previous`, `attempt` |
| `progress` | `progress`, `item_progress`, `stage`, `step_index`, `steps_total` |
| `artifact` | the fields of the artifact listing without `url` and `url_expires_at` |
| `log` | `level`, `code`, `message` |
| `error` | `code`, `message`, `retryable` |

Without `Last-Event-ID` and `after` it begins with the job's first event; with one of them, right after that event,
with no gap and no repetition. After the terminal `state` comes `end` (without an id) and the stream closes; a client
that asks again with nothing missing gets 204. A reader that can't keep up misses superseded progress, nothing else.
"""
_EXAMPLE = (
    'retry: 2000\n\nid: 1\nevent: state\ndata: {"seq":1,"ts":"2026-11-20T12:00:00.000Z",'
    '"job_id":"01a1fd5c-9981-7483-9833-4709df31d11f","step":"generate","item_index":null,'
    '"status":"running","previous":"queued","attempt":1}\n\nevent: end\ndata: {"last_seq": 1}\n\n'
)
_RESUME = {
    "parameters": [
        {
            "name": "Last-Event-ID",
            "in": "header",
            "required": False,
            "description": "`seq` of the last event seen; wins over `after`.",
            "schema": {"type": "integer", "minimum": 0, "maximum": MAX_SEQ},
        },
        {
            "name": "after",
            "in": "query",
            "required": False,
            "description": "`seq` of the last event seen.",
            "schema": {"type": "integer", "minimum": 0, "maximum": MAX_SEQ},
        },
    ]
}


@router.get(
    "/{job_id}/progress",
    summary="Get a job's progress",
    response_model=JobProgress,
    responses=problems(ErrorCode.NOT_FOUND, ErrorCode.UNAVAILABLE),
)
async def get_progress(request: Request, job_id: JobIdText) -> Response:
    shown = await service.snapshot(services(request), job_id_of(job_id))
    return Response(to_json(shown), media_type="application/json", headers={"cache-control": "no-store"})


@router.get(
    "/{job_id}/progress/stream",
    summary="Follow a job live",
    description=_STREAM,
    response_class=Response,
    openapi_extra=_RESUME,
    responses=problems(
        ErrorCode.INVALID_PARAMETER,
        ErrorCode.NOT_FOUND,
        ErrorCode.TOO_MANY_STREAMS,
        ErrorCode.UNAVAILABLE,
        also={
            200: {
                "description": "Events as they happen.",
                "content": {"text/event-stream": {"itemSchema": FRAME, "example": _EXAMPLE}},
            },
            204: {"description": "The job has ended and nothing is missing."},
        },
    ),
)
async def stream_progress(request: Request, job_id: JobIdText) -> Response:
    broadcaster = services(request).broadcaster
    wanted = job_id_of(job_id)
    after, named, where = resume_from(request)
    subscription = await broadcaster.attach(wanted, after, named, where)
    if subscription is None:
        return Response(status_code=204)
    return EventStream(broadcaster, subscription)
