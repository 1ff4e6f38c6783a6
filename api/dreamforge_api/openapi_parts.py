"""Pieces of the OpenAPI document that several routes share."""

from typing import Any

from dreamforge.errors import FACTS, ErrorCode
from dreamforge_api.problem import MEDIA_TYPE, TYPE_PREFIX

Responses = dict[int | str, dict[str, Any]]

#: Examples by name. FastAPI drops every null of what it is given, so routes name an example and the finished
#: document gets it whole.
_NAMED: dict[str, Any] = {}
_MARK = "@example:"


def named_example(name: str, value: Any) -> str:
    """Keep an example; put what this gives where the example belongs."""
    _NAMED[name] = value
    return _MARK + name


def with_examples(part: Any) -> Any:
    """``part`` of a document with the named examples in their places."""
    if isinstance(part, dict):
        return {key: with_examples(value) for key, value in part.items()}
    if isinstance(part, list):
        return [with_examples(value) for value in part]
    if isinstance(part, str) and part.startswith(_MARK):
        return _NAMED[part.removeprefix(_MARK)]
    return part


_DETAILS: dict[ErrorCode, list[dict[str, Any]]] = {
    ErrorCode.INVALID_INPUT: [
        {
            "pointer": "/width",
            "field": "width",
            "rule": "multiple_of",
            "message": "Input should be a multiple of 8",
            "got": "integer",
        }
    ],
    ErrorCode.INVALID_PARAMETER: [
        {
            "pointer": "/query/limit",
            "field": "limit",
            "rule": "less_than_equal",
            "message": "Input should be less than or equal to 200",
            "got": "string",
        }
    ],
}
_RETRY = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
_ALLOW = {"Allow": {"description": "Methods that work here.", "schema": {"type": "string"}}}


def problems(*codes: ErrorCode, also: Responses | None = None) -> Responses:
    """The error answers of a route, with an example for each code; after those in ``also``."""
    found: Responses = dict(also or {})
    for code in codes:
        facts = FACTS[code]
        status = facts.http_status or 500
        answer = found.setdefault(
            status,
            {
                "description": facts.title,
                "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}},
            },
        )
        if status in (409, 429, 503):
            answer["headers"] = _RETRY
        value = named_example(f"problem {code.value}", example(code))
        answer["content"][MEDIA_TYPE]["examples"][code.value] = {"summary": facts.title, "value": value}
    return found


def example(code: ErrorCode) -> dict[str, Any]:
    """What a client sees for ``code``."""
    facts = FACTS[code]
    return {
        "type": TYPE_PREFIX + code,
        "title": facts.title,
        "status": facts.http_status,
        "detail": facts.title,
        "instance": "/v1/jobs",
        "code": code.value,
        "message": facts.title,
        "details": _DETAILS.get(code, []),
        "correlation_id": "01a1fd5c-9981-7483-9833-4709df31d11f",
        "job_id": None,
    }


PROBLEM_SCHEMA: dict[str, Any] = {
    "title": "Problem",
    "description": "RFC 9457 problem details, with the fields of the error envelope.",
    "type": "object",
    "required": [
        "type",
        "title",
        "status",
        "detail",
        "instance",
        "code",
        "message",
        "details",
        "correlation_id",
        "job_id",
    ],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "code": {"type": "string", "enum": [code.value for code, facts in FACTS.items() if facts.http_status]},
        "message": {"type": "string"},
        "details": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["pointer", "field", "rule", "message", "got"],
                "properties": {
                    "pointer": {"type": "string", "description": "JSON Pointer (RFC 6901) into the body."},
                    "field": {"type": "string"},
                    "rule": {"type": "string"},
                    "message": {"type": "string"},
                    "got": {"type": "string", "description": "What kind of value it was; never the value."},
                    "allowed": {"type": "array", "items": {"type": "string"}},
                },
            },
        },
        "correlation_id": {"type": ["string", "null"]},
        "job_id": {"type": ["string", "null"]},
    },
}
