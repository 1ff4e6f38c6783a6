"""``/healthz``, ``/readyz`` and ``/metrics``."""

from fastapi import APIRouter, Request
from pydantic_core import to_json
from starlette.responses import Response

from dreamforge_api import metrics
from dreamforge_api.deps import services
from dreamforge_api.health.schemas import Health, Ready

router = APIRouter(tags=["health"])
_JSON = "application/json"
_FRESH = {"cache-control": "no-store"}


@router.get("/healthz", summary="Whether the process lives", response_model=Health)
async def healthz() -> Response:
    return Response(b'{"status":"ok"}', media_type=_JSON, headers=_FRESH)


@router.get(
    "/readyz",
    summary="Whether the process can work",
    description="Asks database, schema, Redis and object store. Each gets 1.5 s.",
    response_model=Ready,
    responses={503: {"model": Ready, "description": "A part does not work; `checks` says which and why."}},
)
async def readyz(request: Request) -> Response:
    checks = await services(request).readiness.checks()
    ready = all(check.ok for check in checks)
    body = {
        "status": "ready" if ready else "unavailable",
        "checks": {check.name: {"ok": check.ok, "detail": check.detail} for check in checks},
    }
    headers = _FRESH if ready else _FRESH | {"retry-after": "1"}
    return Response(to_json(body), 200 if ready else 503, headers, _JSON)


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Exposition text."}},
    response_class=Response,
)
async def show_metrics(request: Request) -> Response:
    own = services(request)
    await own.snapshot.refresh()
    content = metrics.render(own.settings.prometheus_multiproc_dir, own.snapshot)
    return Response(content, media_type=metrics.CONTENT_TYPE, headers=_FRESH)
