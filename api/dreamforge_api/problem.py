"""Errors over HTTP: ``application/problem+json`` (RFC 9457) with flat ``code``, ``message``, ``details`` beside it.

Raise :class:`Problem` anywhere below a route; :func:`install` turns it, and everything else that can go wrong, into
one shape. A body never repeats what the client sent, only where it was and what kind of value it was.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from dreamforge.errors import FACTS, DreamForgeError, ErrorCode, Unavailable

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "https://dreamforge.dev/errors#"
#: Key of the ASGI scope under which the middleware keeps the request's correlation id.
CORRELATION = "dreamforge.correlation_id"

RETRY_AFTER_SECONDS = 1
_LONGEST_NAME = 128

Detail = dict[str, Any]


class Problem(DreamForgeError):
    """An answer that is not the one the client hoped for."""

    def __init__(
        self,
        code: ErrorCode,
        detail: str,
        *,
        details: Sequence[Detail] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.details = list(details)
        self.headers = dict(headers or {})


def not_found(detail: str) -> Problem:
    return Problem(ErrorCode.NOT_FOUND, detail)


def busy(code: ErrorCode, detail: str, seconds: int = RETRY_AFTER_SECONDS) -> Problem:
    """A refusal that a later try may not meet."""
    return Problem(code, detail, headers={"Retry-After": str(seconds)})


def bad_parameter(name: str, rule: str, message: str, *, where: str = "query", got: str = "string") -> Problem:
    """A query parameter or header that breaks a rule (400)."""
    detail = {"pointer": f"/{where}/{name}", "field": name, "rule": rule, "message": message, "got": got}
    return Problem(ErrorCode.INVALID_PARAMETER, f"{name}: {message}", details=[detail])


def invalid_body(errors: Iterable[ErrorDetails]) -> Problem:
    """A body that breaks rules of its model (422)."""
    details = [detail_of(error) for error in errors]
    count = len(details)
    text = "One field breaks a rule" if count == 1 else f"{count} fields break a rule"
    return Problem(ErrorCode.INVALID_INPUT, text, details=details)


def detail_of(error: ErrorDetails, *, skip: int = 0) -> Detail:
    """One broken rule, without the value that broke it. ``skip`` drops leading parts of the location."""
    location = [str(part)[:_LONGEST_NAME] for part in error["loc"][skip:]]
    missing = error["type"] == "missing"
    return {
        "pointer": "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in location),
        "field": ".".join(location),
        "rule": error["type"],
        "message": error["msg"],
        "got": "absent" if missing else value_class(error["input"]),
    }


def value_class(value: object) -> str:
    """What kind of JSON value it is, in JSON's own words."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list() | tuple():
            return "array"
    return "object"


def response(problem: Problem, scope: Mapping[str, Any]) -> Response:
    """The answer for ``problem`` on the request in ``scope``."""
    facts = FACTS[problem.code]
    status = facts.http_status or 500
    body = {
        "type": TYPE_PREFIX + problem.code,
        "title": facts.title,
        "status": status,
        "detail": problem.detail,
        "instance": scope.get("raw_path", b"").decode("ascii", "replace")[:256],
        "code": problem.code.value,
        "message": problem.detail,
        "details": problem.details,
        "correlation_id": scope.get(CORRELATION),
        "job_id": _job_id(scope),
    }
    # ASCII only: a lone surrogate in a field's name must not become a second error.
    content = json.dumps(body, ensure_ascii=True).encode()
    headers = {"cache-control": "no-store", **problem.headers}
    return Response(content, status_code=status, headers=headers, media_type=MEDIA_TYPE)


def _job_id(scope: Mapping[str, Any]) -> str | None:
    given = scope.get("path_params", {}).get("job_id")
    try:
        return str(UUID(given)) if isinstance(given, str) else None
    except ValueError:
        return None


def unavailable(error: Unavailable) -> Problem:
    return busy(ErrorCode.UNAVAILABLE, str(error))


def install(app: FastAPI) -> None:
    """Answer every error of ``app`` as a problem."""

    async def on_problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)  # noqa: S101 - registered for this class only
        return response(error, request.scope)

    async def on_unavailable(request: Request, error: Exception) -> Response:
        assert isinstance(error, Unavailable)  # noqa: S101 - registered for this class only
        return response(unavailable(error), request.scope)

    async def on_parameters(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class only
        return response(_parameters(error), request.scope)

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class only
        return response(_http(app, request, error), request.scope)

    app.add_exception_handler(Problem, on_problem)
    app.add_exception_handler(Unavailable, on_unavailable)
    app.add_exception_handler(RequestValidationError, on_parameters)
    app.add_exception_handler(HTTPException, on_http)


def _parameters(error: RequestValidationError) -> Problem:
    details = [detail_of(part) for part in error.errors()]
    for detail, part in zip(details, error.errors(), strict=True):
        detail["field"] = ".".join(str(name) for name in part["loc"][1:])
    text = "; ".join(f"{detail['field']}: {detail['message']}" for detail in details)
    return Problem(ErrorCode.INVALID_PARAMETER, text, details=details)


def _http(app: FastAPI, request: Request, error: HTTPException) -> Problem:
    if error.status_code == 405:
        allow = ", ".join(sorted(_methods(app, request)))
        return Problem(ErrorCode.METHOD_NOT_ALLOWED, f"This resource answers {allow}", headers={"Allow": allow})
    if error.status_code == 404:
        return not_found("There is nothing at this path")
    return Problem(ErrorCode.INTERNAL, "The request could not be answered")


def _methods(app: FastAPI, request: Request) -> set[str]:
    """Every method that some route answers at this path: one path may have a route for each method."""
    found: set[str] = set()
    for route in app.router.routes:
        match, _ = route.matches(request.scope)
        if match is not Match.NONE:
            found |= set(getattr(route, "methods", None) or ())
    return found
