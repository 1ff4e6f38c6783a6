"""``/v1/jobs``: create, list, get, cancel."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import AfterValidator
from pydantic_core import to_json
from starlette.responses import Response

from dreamforge.errors import ErrorCode
from dreamforge.jobs import JobState
from dreamforge.models import MAX_ID
from dreamforge.spec import CLEAN, clean_text
from dreamforge_api import body
from dreamforge_api.deps import services
from dreamforge_api.jobs import intake
from dreamforge_api.jobs.schemas import EXAMPLE_JOB, EXAMPLE_REQUEST, Job, JobPage
from dreamforge_api.jobs.service import Filter
from dreamforge_api.openapi_parts import Responses, named_example, problems
from dreamforge_api.parameters import (
    Cursor,
    JobIdText,
    LabelFilter,
    Limit,
    cursor_of,
    id_of_cursor,
    idempotency_key,
    job_id_of,
)
from dreamforge_api.problem import CORRELATION

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
_JSON = "application/json"
_EXAMPLE = {_JSON: {"example": named_example("job", EXAMPLE_JOB)}}
_EXAMPLE_PAGE = {_JSON: {"example": named_example("job page", {"items": [EXAMPLE_JOB], "next_cursor": None})}}
_JOB: Responses = {202: {"content": _EXAMPLE}}

_CREATE_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            _JSON: {
                "schema": {"$ref": "#/components/schemas/CreateJobRequest"},
                "examples": {
                    "one": {"summary": "One image", "value": EXAMPLE_REQUEST},
                    "batch": {
                        "summary": "Five portraits from a preset, labelled",
                        "value": {
                            "prompt": "a lighthouse keeper, oil on canvas",
                            "count": 5,
                            "preset": "portrait",
                            "labels": {"project": "harbour"},
                        },
                    },
                },
            }
        },
    },
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "description": "1 to 255 printable ASCII characters. The same key and body get the first answer again.",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]*[!-~][ -~]*$"},
        }
    ],
}
_CREATED_HEADERS = {
    "Location": {"description": "The job's URL.", "schema": {"type": "string"}},
    "Idempotency-Replayed": {
        "description": "`true` when this is the stored answer of an earlier request.",
        "schema": {"type": "string"},
    },
}


@router.post(
    "",
    summary="Create a job",
    description="Answers as soon as the job is stored; it is then never lost. Follow it with `urls.events`.",
    status_code=202,
    response_model=Job,
    openapi_extra=_CREATE_BODY,
    responses=problems(
        ErrorCode.MALFORMED_BODY,
        ErrorCode.INVALID_PARAMETER,
        ErrorCode.BODY_TOO_LARGE,
        ErrorCode.UNSUPPORTED_MEDIA_TYPE,
        ErrorCode.INVALID_INPUT,
        ErrorCode.UNKNOWN_MODEL,
        ErrorCode.UNKNOWN_PRESET,
        ErrorCode.IDEMPOTENCY_KEY_REUSED,
        ErrorCode.IDEMPOTENCY_KEY_IN_USE,
        ErrorCode.QUEUE_FULL,
        ErrorCode.UNAVAILABLE,
        also={202: {"headers": _CREATED_HEADERS, **_JOB[202]}},
    ),
)
async def create_job(request: Request) -> Response:
    key = idempotency_key(request)
    wanted = intake.validated(await body.read_json(request))
    created = await services(request).jobs.create(wanted, request.scope[CORRELATION], key)
    headers = {"location": f"/v1/jobs/{created.job_id}"}
    if created.replayed:
        headers["idempotency-replayed"] = "true"
    return Response(created.content, 202, headers, _JSON)


@router.get(
    "",
    summary="List jobs",
    description="Newest first. Give `next_cursor` back as `cursor` to go on.",
    response_model=JobPage,
    responses=problems(
        ErrorCode.INVALID_PARAMETER,
        ErrorCode.UNAVAILABLE,
        also={200: {"content": _EXAMPLE_PAGE}},
    ),
)
async def list_jobs(
    request: Request,
    status: Annotated[JobState | None, Query(description="Only jobs in this state.")] = None,
    model_id: Annotated[
        str | None,
        Query(max_length=MAX_ID, description="Only jobs of this model."),
        AfterValidator(clean_text),
        CLEAN,
    ] = None,
    label: Annotated[
        list[LabelFilter], Query(max_length=16, description="Only jobs with this label, as `key=value`; repeatable.")
    ] = [],  # noqa: B006 - FastAPI copies defaults
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    labels = dict(text.split("=", 1) for text in label)
    wanted = Filter(status, model_id, labels)
    items, next_id = await services(request).jobs.page(wanted, limit, id_of_cursor(cursor))
    page = {"items": items, "next_cursor": None if next_id is None else cursor_of(next_id)}
    return Response(to_json(page), media_type=_JSON)


@router.get(
    "/{job_id}",
    summary="Get a job",
    response_model=Job,
    responses=problems(
        ErrorCode.NOT_FOUND,
        ErrorCode.UNAVAILABLE,
        also={200: {"content": _EXAMPLE}},
    ),
)
async def get_job(request: Request, job_id: JobIdText) -> Response:
    shown = await services(request).jobs.get(job_id_of(job_id))
    return Response(to_json(shown), media_type=_JSON)


@router.post(
    "/{job_id}/cancel",
    summary="Cancel a job",
    description="Asks the job to stop. Asking again changes nothing; a job that has ended is answered unchanged.",
    status_code=202,
    response_model=Job,
    responses=problems(
        ErrorCode.NOT_FOUND,
        ErrorCode.UNAVAILABLE,
        also={**_JOB, 200: {"model": Job, "description": "The job had ended already."}},
    ),
)
async def cancel_job(request: Request, job_id: JobIdText) -> Response:
    shown, stopping = await services(request).jobs.cancel(job_id_of(job_id))
    return Response(to_json(shown), 202 if stopping else 200, media_type=_JSON)
