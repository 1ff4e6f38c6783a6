"""The OpenAPI document: what FastAPI derives, made to say what the API really does."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel

from dreamforge_api.jobs.schemas import CreateJobRequest
from dreamforge_api.logs.schemas import LogLine
from dreamforge_api.openapi_links import LINKS
from dreamforge_api.openapi_parts import PROBLEM_SCHEMA, with_examples
from dreamforge_api.progress import events

_REFERENCE = "#/components/schemas/{model}"
_NULL = {"type": "null"}
#: What describes a property whatever its type.
_ABOUT = ("title", "description", "default")
#: Bodies that FastAPI does not see: routes read the request and write lines and frames themselves.
_UNSEEN: tuple[type[BaseModel], ...] = (CreateJobRequest, LogLine, *events.MODELS)


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
    for model in _UNSEEN:
        schema = model.model_json_schema(ref_template=_REFERENCE)
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
    _null_means_absent(schemas[CreateJobRequest.__name__])
    schemas["Problem"] = PROBLEM_SCHEMA
    # FastAPI promises its own validation errors; ours are problems.
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for name, operation in _operations(app, made):
        operation["operationId"] = name
        _without_fastapi_errors(operation["responses"])
        for parameter in operation.get("parameters", ()):
            _never_null(parameter["schema"])
        for status, links in LINKS.get(name, {}).items():
            operation["responses"][status]["links"] = links
    made["components"]["schemas"] = dict(sorted(schemas.items()))
    completed: dict[str, Any] = with_examples(made)
    return completed


def _operations(app: FastAPI, made: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Each operation with the name of its handler."""
    return [
        (route.name, made["paths"][route.path_format][method.lower()])
        for route in app.routes
        if isinstance(route, APIRoute) and route.include_in_schema
        for method in sorted(route.methods or ())
    ]


def _null_means_absent(request: dict[str, Any]) -> None:
    """Every optional field takes null: the models' types don't say so, a rule before them does."""
    for name, schema in request["properties"].items():
        if name in request["required"] or _NULL in schema.get("anyOf", ()):
            continue
        if "type" in schema and not schema.keys() & {"const", "enum"}:
            schema["type"] = [schema["type"], "null"]
            continue
        about = {key: schema.pop(key) for key in _ABOUT if key in schema}
        request["properties"][name] = {"anyOf": [schema, _NULL], **about}


def _never_null(schema: dict[str, Any]) -> None:
    """A path, query or header value is text; a parameter that may be left out is not one that may be null."""
    kept = [each for each in schema.get("anyOf", ()) if each != _NULL]
    if len(kept) == 1:
        del schema["anyOf"]
        schema.update(kept[0])


def _without_fastapi_errors(responses: dict[str, Any]) -> None:
    schema = responses.get("422", {}).get("content", {}).get("application/json", {}).get("schema", {})
    if schema.get("$ref", "").endswith("/HTTPValidationError"):
        content = responses["422"]["content"]
        del content["application/json"]
        if not content:
            del responses["422"]
