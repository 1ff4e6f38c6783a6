"""The OpenAPI document: what FastAPI derives, made to say what the API really does."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from dreamforge_api.jobs.schemas import CreateJobRequest
from dreamforge_api.openapi_parts import PROBLEM_SCHEMA, with_examples

_REFERENCE = "#/components/schemas/{model}"


def install(app: FastAPI) -> None:
    """Make ``app`` answer ``/openapi.json`` with :func:`document`."""

    def cached() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = document(app)
        return app.openapi_schema

    app.openapi = cached  # type: ignore[method-assign]  # FastAPI's documented way to replace it


def document(app: FastAPI) -> dict[str, Any]:
    made = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        license_info=app.license_info,
        routes=app.routes,
    )
    schemas = made.setdefault("components", {}).setdefault("schemas", {})
    request = CreateJobRequest.model_json_schema(ref_template=_REFERENCE)
    schemas.update(request.pop("$defs", {}))
    schemas["CreateJobRequest"] = request
    schemas["Problem"] = PROBLEM_SCHEMA
    # FastAPI promises its own validation errors; ours are problems.
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for path in made["paths"].values():
        for operation in path.values():
            _without_fastapi_errors(operation["responses"])
    made["components"]["schemas"] = dict(sorted(schemas.items()))
    completed: dict[str, Any] = with_examples(made)
    return completed


def _without_fastapi_errors(responses: dict[str, Any]) -> None:
    schema = responses.get("422", {}).get("content", {}).get("application/json", {}).get("schema", {})
    if schema.get("$ref", "").endswith("/HTTPValidationError"):
        content = responses["422"]["content"]
        del content["application/json"]
        if not content:
            del responses["422"]
