"""``/v1/jobs/{job_id}/artifacts``, and the files of the filesystem store."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, BinaryIO

from fastapi import APIRouter, Request
from pydantic_core import to_json
from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response, StreamingResponse

from dreamforge.db import artifacts, jobs
from dreamforge.errors import ErrorCode
from dreamforge.spec import ImageFormat
from dreamforge.storage.base import ObjectInfo, ObjectNotFound
from dreamforge.storage.filesystem import FilesystemStore
from dreamforge.storage.links import Forbidden, content_disposition
from dreamforge_api import times
from dreamforge_api.artifacts.schemas import ArtifactList
from dreamforge_api.deps import Services, services
from dreamforge_api.openapi_parts import problems
from dreamforge_api.parameters import JobIdText, job_id_of
from dreamforge_api.problem import Problem, not_found

router = APIRouter(tags=["artifacts"])
_FIELDS = ("step", "item_index", "format", "width", "height", "seed", "size_bytes", "sha256")
_CHUNK = 256 * 1024


@router.get(
    "/v1/jobs/{job_id}/artifacts",
    summary="List a job's images",
    description="Those stored so far, each with a link that expires.",
    response_model=ArtifactList,
    responses=problems(ErrorCode.NOT_FOUND, ErrorCode.UNAVAILABLE),
)
async def list_artifacts(request: Request, job_id: JobIdText) -> Response:
    own = services(request)
    wanted = job_id_of(job_id)

    async def work(connection: AsyncConnection) -> Sequence[RowMapping] | None:
        found = (await connection.execute(artifacts.of_job(wanted))).mappings().all()
        if not found and (await connection.execute(jobs.by_id(wanted))).first() is None:
            return None
        return found

    rows = await own.database.run(work)
    if rows is None:
        raise not_found("There is no such job")
    origin = (own.settings.api_public_url or str(request.base_url)).rstrip("/")
    # Signing for S3 is milliseconds of pure computing for each link.
    items = await asyncio.to_thread(lambda: [_resource(own, row, origin) for row in rows])
    return Response(to_json({"items": items}), media_type="application/json", headers={"cache-control": "no-store"})


def _resource(own: Services, row: Mapping[Any, Any], origin: str) -> dict[str, Any]:
    link = own.storage.sign_get(
        row["key"],
        ttl_seconds=own.link_seconds,
        filename=row["key"].rpartition("/")[2],
        content_type=ImageFormat(row["format"]).media_type,
    )
    return {
        "id": str(row["id"]),
        **{name: row[name] for name in _FIELDS},
        "url": origin + link.url if link.url.startswith("/") else link.url,
        "url_expires_at": times.text(link.expires_at),
        "metadata": row["metadata"],
    }


@router.get(
    "/v1/objects/{key:path}",
    summary="Read an image by its link",
    description="Only with the signature that an artifact listing gave, until it expires. Not with an S3 store.",
    response_class=Response,
    responses=problems(
        ErrorCode.FORBIDDEN,
        ErrorCode.NOT_FOUND,
        also={
            200: {
                "description": "The image.",
                "content": {
                    name: {"schema": {"type": "string", "format": "binary"}} for name in ("image/png", "image/jpeg")
                },
            },
            304: {"description": "The client has it already (`If-None-Match`)."},
        },
    ),
)
async def read_object(request: Request, key: str) -> Response:
    files = services(request).files
    if files is None:
        raise not_found("There is nothing at this path")
    given = request.query_params.multi_items()
    try:
        link = files.verify_get(key, dict(given) if len(dict(given)) == len(given) else {})
    except Forbidden as error:
        raise Problem(ErrorCode.FORBIDDEN, str(error)) from None
    try:
        info, file = await asyncio.to_thread(_open, files, key)
    except ObjectNotFound:
        raise not_found("The image is gone") from None
    headers = {
        "cache-control": "private, no-store",
        "content-disposition": content_disposition(link.filename),
        "content-length": str(info.size_bytes),
        "content-security-policy": "default-src 'none'; sandbox",
    }
    if info.sha256 is not None:
        headers["etag"] = f'"{info.sha256}"'
        if request.headers.get("if-none-match") == headers["etag"]:
            file.close()
            del headers["content-length"]
            return Response(status_code=304, headers=headers)
    return StreamingResponse(_read(file), headers=headers, media_type=link.content_type)


def _open(files: FilesystemStore, key: str) -> tuple[ObjectInfo, BinaryIO]:
    info = files.head(key)
    if info is None:
        raise ObjectNotFound(key)
    return info, files.open(key)


async def _read(file: BinaryIO) -> AsyncIterator[bytes]:
    with file:
        while part := await asyncio.to_thread(file.read, _CHUNK):
            yield part
