"""What a schema can't say: streams without gaps, logs in order, ids that agree, links that lead to the image."""

import hashlib
import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests
import schemathesis
from jsonschema import Draft202012Validator
from schemathesis.core.failures import ServerError
from schemathesis.openapi.checks import RejectedPositiveData

from tests.api_server import parse_sse

STREAM = "GET /v1/jobs/{job_id}/progress/stream"
#: Refusals of good requests that depend on what the system holds: a key's first body, the models there are.
_DEPENDS_ON_STATE = {"idempotency_key_reused", "unknown_model", "unknown_preset"}
_TERMINAL = {"succeeded", "failed", "canceled"}


def no_schema_can_tell(failure: Exception, response: schemathesis.Response) -> bool:
    """Whether a request that keeps its schema was refused for a reason that JSON Schema has no word for.

    One of them is a machine that is too busy to answer in time, which the document allows every call to say.
    """
    if isinstance(failure, ServerError):
        return response.status_code == 503  # counted, and judged by who asked for the calls
    if not isinstance(failure, RejectedPositiveData):
        return False
    refusal = response.json()
    return refusal["code"] in _DEPENDS_ON_STATE or any(
        # 256.0 is an integer to JSON Schema; here it is refused, so that two readers can't disagree on it.
        (detail["rule"] == "int_type" and detail["got"] == "number")
        # A stream can't go on after an event that has not happened yet.
        or (detail["rule"] == "less_than_equal" and detail["field"] in ("after", "Last-Event-ID"))
        for detail in refusal["details"]
    )


@schemathesis.check
def streams_have_no_gap(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case[Any]
) -> None:
    """Events follow the one asked for, each once; only after a terminal state comes `end`, and nothing after it."""
    if case.operation.label != STREAM or response.status_code != 200:
        return
    frames = [frame for frame in parse_sse(iter(response.text.split("\n"))) if "data" in frame]
    ends = [index for index, frame in enumerate(frames) if frame["event"] == "end"]
    events = [frame for frame in frames if frame["event"] != "end"]
    first = _resumed_after(response.request) + 1
    assert [int(frame["id"]) for frame in events] == list(range(first, first + len(events)))
    assert all(int(frame["id"]) == frame["data"]["seq"] for frame in events)
    assert all(frame["data"]["job_id"] == case.path_parameters["job_id"].lower() for frame in events)
    last = [frame for frame in events if frame["event"] == "state" and frame["data"]["status"] in _TERMINAL]
    if last:
        assert last == events[-1:]
    if ends:
        assert ends == [len(frames) - 1]
        assert last
        assert "id" not in frames[-1]
        assert frames[-1]["data"] == {"last_seq": int(events[-1]["id"])}


def _resumed_after(request: requests.PreparedRequest) -> int:
    if (header := request.headers.get("Last-Event-ID")) is not None:
        return int(header)
    return int(parse_qs(urlsplit(request.url or "").query).get("after", ["0"])[-1])


@schemathesis.check
def log_lines_keep_their_schema(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case[Any]
) -> None:
    """Each line is one JSON object as the document says, and they are in order."""
    if not _content_type(response).startswith("application/x-ndjson"):
        return
    document: dict[str, Any] = case.operation.schema.raw_schema
    validator = Draft202012Validator(
        {**document["components"]["schemas"]["LogLine"], "components": document["components"]}
    )
    *lines, rest = response.text.split("\n")
    assert rest == ""
    seen = [json.loads(line) for line in lines]
    for line in seen:
        validator.validate(line)
    numbers = [line["seq"] for line in seen]
    assert numbers == sorted(set(numbers))


@schemathesis.check
def answers_name_their_request(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case[Any]
) -> None:
    """Every answer has a correlation id and may not be sniffed; a problem repeats its id and its status."""
    (correlation_id,) = response.headers["x-correlation-id"]
    assert response.headers["x-content-type-options"] == ["nosniff"]
    if _content_type(response) == "application/problem+json":
        problem = response.json()
        assert problem["correlation_id"] == correlation_id
        assert problem["status"] == response.status_code


@schemathesis.check
def links_lead_to_the_image(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case[Any]
) -> None:
    """The first link of an artifact listing gives what the listing says; a call by itself, not counted."""
    if case.operation.label != "GET /v1/jobs/{job_id}/artifacts" or response.status_code != 200:
        return
    for item in response.json()["items"][:1]:
        image = requests.get(item["url"], timeout=20)
        assert image.status_code == 200, item["url"]
        assert hashlib.sha256(image.content).hexdigest() == item["sha256"]
        assert image.headers["content-type"] == {"png": "image/png", "jpg": "image/jpeg"}[item["format"]]


def _content_type(response: schemathesis.Response) -> str:
    return str(response.headers.get("content-type", [""])[0])
