"""From a job's row to the spec its runner gets."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Row

from dreamforge.errors import ErrorCode, JobError
from dreamforge.models import FileRole
from dreamforge.spec import Limits, ModelRef, RenderParams, RenderSpec


def render_spec(row: Row[Any], limits: Limits) -> RenderSpec:
    """The spec of a job that is about to be dispatched, from what ``dispatch.ORDER`` selects.

    Raises ``JobError`` when its model left the registry, and when its parameters are of another version's making: one
    such row must not end the loop for all others.
    """
    return RenderSpec(
        job_id=row.id,
        user=row.owner,
        created_at=row.created_at,
        correlation_id=row.correlation_id,
        params=_params(row.params),
        model=_model(row.model_id, row.model),
        limits=limits.model_copy(update={"deadline_at": row.deadline_at}),
        seeds={int(index): seed for index, seed in (row.seeds or {}).items()},
    )


def _params(stored: object) -> RenderParams:
    try:
        return RenderParams.model_validate(stored)
    except ValidationError as error:
        fields = ", ".join(sorted({".".join(map(str, item["loc"])) for item in error.errors(include_url=False)}))
        message = f"this version can't read the job's parameters: {fields}"
        raise JobError(ErrorCode.INVALID_INPUT, message) from None


def _model(model_id: str, found: Mapping[str, Any] | None) -> ModelRef:
    if found is None:
        raise JobError(ErrorCode.MODEL_MISSING, f"model {model_id} is no longer registered")
    return ModelRef(
        id=model_id,
        name=found["name"],
        kind=found["kind"],
        version=found["version"],
        path=found["local_path"],
        folder_path=folder_path(found["folder"], found["files"]),
        sha256=found["checkpoint_hash"],
        size_bytes=found["size_bytes"] if found["checkpoint_hash"] else None,
    )


def folder_path(folder: str | None, files: Sequence[Mapping[str, Any]]) -> str | None:
    """Where an installed model's checkpoint lies below any machine's models root."""
    checkpoint = next((file["path"] for file in files if file["role"] == FileRole.CHECKPOINT), None)
    return f"{folder}/{checkpoint}" if folder and checkpoint else None
