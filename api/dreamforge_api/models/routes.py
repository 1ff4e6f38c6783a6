"""``/v1/models``: what is registered, with the schema of its parameters."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic_core import to_json
from starlette.responses import Response

from dreamforge import presets
from dreamforge.db import registry
from dreamforge.errors import ErrorCode
from dreamforge_api import times
from dreamforge_api.deps import services
from dreamforge_api.models.schemas import Model, ModelList
from dreamforge_api.openapi_parts import problems
from dreamforge_api.problem import not_found

router = APIRouter(prefix="/v1/models", tags=["models"])
_FIELDS = tuple(Model.model_fields)


@router.get(
    "",
    summary="List models",
    description="Enabled models, unless `enabled=false` asks for the disabled ones.",
    response_model=ModelList,
    responses=problems(ErrorCode.INVALID_PARAMETER, ErrorCode.UNAVAILABLE),
)
async def list_models(
    request: Request,
    enabled: Annotated[
        Literal["true", "false"], Query(description="Which models to show.", json_schema_extra={"type": "string"})
    ] = "true",
) -> Response:
    own = services(request)
    await own.catalog.register()
    rows = await own.database.rows(registry.listing(enabled_only=False))
    shown = [_resource(row) for row in rows if row["enabled"] == (enabled == "true")]
    return Response(to_json({"items": shown}), media_type="application/json")


@router.get(
    "/{model_id:path}",
    summary="Get a model",
    response_model=Model,
    responses=problems(ErrorCode.NOT_FOUND, ErrorCode.UNAVAILABLE),
)
async def get_model(request: Request, model_id: str) -> Response:
    own = services(request)
    await own.catalog.register()
    row = None if "\0" in model_id else await own.database.row(registry.by_id(model_id))
    if row is None:
        raise not_found("There is no such model")
    return Response(to_json(_resource(row)), media_type="application/json")


def _resource(row: Mapping[Any, Any]) -> dict[str, Any]:
    offered = presets.offered(presets.read(row["presets"]))
    return {name: row[name] for name in _FIELDS} | {
        "presets": {name: {**preset.model_dump(), "defaults": preset.fills} for name, preset in offered.items()},
        "verified_at": times.text_or_none(row["verified_at"]),
        "created_at": times.text(row["created_at"]),
        "updated_at": times.text(row["updated_at"]),
    }
