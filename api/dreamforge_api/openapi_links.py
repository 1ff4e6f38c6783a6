"""Links of the OpenAPI document: which answer's field is which later call's parameter."""

from typing import Any

_OF_A_JOB = ("get_job", "cancel_job", "list_artifacts", "read_logs", "get_progress", "stream_progress")


def _link(operation: str, parameter: str, source: str) -> dict[str, Any]:
    return {"operationId": operation, "parameters": {parameter: f"$response.body#{source}"}}


def _to_job(source: str) -> dict[str, Any]:
    return {operation: _link(operation, "job_id", source) for operation in _OF_A_JOB}


_JOB = _to_job("/id")

#: By operation and status.
LINKS: dict[str, dict[str, dict[str, Any]]] = {
    "create_job": {"202": _JOB},
    "get_job": {"200": _JOB},
    "cancel_job": {"200": _JOB, "202": _JOB},
    "list_jobs": {"200": {"next_page": _link("list_jobs", "cursor", "/next_cursor"), **_to_job("/items/0/id")}},
    "get_progress": {
        "200": {
            "events_since": {
                "operationId": "stream_progress",
                "parameters": {"job_id": "$request.path.job_id", "after": "$response.body#/last_seq"},
            }
        }
    },
    "list_models": {"200": {"get_model": _link("get_model", "model_id", "/items/0/id")}},
}
