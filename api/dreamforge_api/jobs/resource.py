"""The job resource as a plain dict: from a row, or from a request that is just being written."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from dreamforge.jobs import JobState
from dreamforge_api import times


def from_row(row: Mapping[Any, Any], *, queue_position: int | None, seconds_per_item: float | None) -> dict[str, Any]:
    """The resource of a stored job."""
    return {
        "id": str(row["id"]),
        "type": row["type"],
        "provider": row["provider"],
        "model_id": row["model_id"],
        "status": row["status"],
        "progress": row["progress"],
        "created_at": times.text(row["created_at"]),
        "started_at": times.text_or_none(row["started_at"]),
        "finished_at": times.text_or_none(row["finished_at"]),
        "deadline_at": times.text(row["deadline_at"]),
        "cancel_requested_at": times.text_or_none(row["cancel_requested_at"]),
        "attempt": row["attempt"],
        "params": row["params"],
        "preset": row["preset"],
        "labels": row["labels"],
        "count": row["count"],
        "completed": row["completed"],
        "queue_position": queue_position,
        "eta_seconds": eta(row, seconds_per_item),
        "warnings": row["warnings"],
        "error": _error(row),
        "executor": {"kind": row["executor_kind"], "ref": row["executor_ref"]},
        "urls": urls(row["id"]),
    }


#: Columns of a job that no one has touched yet.
_FRESH: dict[str, Any] = {
    "status": JobState.QUEUED.value,
    "progress": 0.0,
    "started_at": None,
    "finished_at": None,
    "cancel_requested_at": None,
    "attempt": 0,
    "completed": 0,
    "error_code": None,
    "executor_kind": None,
    "executor_ref": None,
}


def fresh(columns: Mapping[str, Any], *, queue_position: int, seconds_per_item: float | None) -> dict[str, Any]:
    """The resource of a job that is just being written."""
    return from_row({**_FRESH, **columns}, queue_position=queue_position, seconds_per_item=seconds_per_item)


def eta(row: Mapping[Any, Any], seconds_per_item: float | None) -> float | None:
    """Seconds of rendering left, without the wait in the queue; ``None`` when unknown or over."""
    if seconds_per_item is None or JobState(row["status"]).terminal:
        return None
    return float(round(seconds_per_item * row["count"] * (1 - row["progress"]), 1))


def urls(job_id: UUID) -> dict[str, str]:
    base = f"/v1/jobs/{job_id}"
    return {
        "self": base,
        "events": f"{base}/progress/stream",
        "artifacts": f"{base}/artifacts",
        "logs": f"{base}/logs",
        "cancel": f"{base}/cancel",
    }


def age_seconds(row: Mapping[Any, Any], moment: datetime) -> float:
    return float(max((moment - row["created_at"]).total_seconds(), 0.0))


def _error(row: Mapping[Any, Any]) -> dict[str, Any] | None:
    if row["error_code"] is None:
        return None
    return {
        "code": row["error_code"],
        "message": row["error_message"],
        "retryable": row["error_retryable"],
        "item_index": row["error_item_index"],
    }
