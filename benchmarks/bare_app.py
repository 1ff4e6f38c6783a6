"""J1's ceiling: FastAPI, the real request model, one INSERT into the real table, a small answer. Nothing else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

from fastapi import FastAPI
from psycopg_pool import AsyncConnectionPool
from uuid_utils.compat import uuid7

from benchmarks import bare_server
from dreamforge.models import SKETCH
from dreamforge_api.jobs.schemas import CreateJobRequest
from tests.servers.postgres import plain

INSERT = """
INSERT INTO jobs (id, owner, type, provider, model_id, params, labels, warnings, count, correlation_id,
                  created_at, deadline_at)
VALUES (%(id)s, 'default', %(type)s, %(provider)s, %(model_id)s, %(params)s, '{}', '[]', %(count)s, 'bare',
        %(created_at)s, %(deadline_at)s)
"""
_DAY = timedelta(days=1)


def row(request: CreateJobRequest, job_id: UUID) -> dict[str, object]:
    """What :data:`INSERT` is given."""
    now = datetime.now(UTC)
    return {
        "id": job_id,
        "type": request.type,
        "provider": request.provider,
        "model_id": SKETCH.id,
        "params": request.model_dump_json(),
        "count": request.count,
        "created_at": now,
        "deadline_at": now + _DAY,
    }


def make_app() -> FastAPI:
    own = bare_server.settings()
    # Autocommit: one round trip and one transaction, which is the fastest an INSERT can be.
    pool = AsyncConnectionPool(
        plain(own.database_url.get_secret_value()),
        min_size=own.database_pool_size,
        max_size=own.database_pool_size,
        kwargs={"autocommit": True},
        open=False,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with pool:
            yield

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)

    @app.post("/v1/jobs", status_code=202)
    async def create(request: CreateJobRequest) -> dict[str, str]:
        job_id = uuid7()
        async with pool.connection() as connection:
            await connection.execute(
                INSERT,
                row(request, job_id),
            )
        return {"id": str(job_id)}

    return app


if __name__ == "__main__":
    bare_server.serve(make_app())
