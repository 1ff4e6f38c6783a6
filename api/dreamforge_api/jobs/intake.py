"""From parsed JSON to a request that keeps every rule; pure."""

import hashlib
import json
from typing import Any

from pydantic import ValidationError

from dreamforge.errors import ErrorCode
from dreamforge.presets import PRESETS
from dreamforge.spec import RenderParams
from dreamforge_api.jobs.schemas import CreateJobRequest
from dreamforge_api.models.choice import SEED_IGNORED
from dreamforge_api.problem import Problem, invalid_body

_PARAMS = set(RenderParams.model_fields)


def validated(data: Any) -> CreateJobRequest:
    """The request in ``data``; raises :class:`Problem` (422)."""
    try:
        return CreateJobRequest.model_validate(_with_preset(data))
    except ValidationError as error:
        raise invalid_body(error.errors(include_url=False, include_context=False)) from None


def params_of(request: CreateJobRequest) -> dict[str, Any]:
    """What a runner is told. A seed for several items is dropped (FR-008)."""
    params = request.model_dump(mode="json", include=_PARAMS)
    if request.count > 1:
        params["seed"] = None
    return params


def warnings_of(request: CreateJobRequest) -> list[str]:
    return [SEED_IGNORED] if request.count > 1 and request.seed is not None else []


def fingerprint(request: CreateJobRequest) -> str:
    """Equal for bodies that mean the same after validation: defaults filled in, null as absent."""
    canonical = json.dumps(request.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _with_preset(data: Any) -> Any:
    """``data`` with its preset's defaults under it; other shapes are left to validation."""
    if not isinstance(data, dict) or not isinstance(name := data.get("preset"), str):
        return data
    if name not in PRESETS:
        names = sorted(PRESETS)
        detail = {
            "pointer": "/preset",
            "field": "preset",
            "rule": "unknown_preset",
            "message": f"Must be one of: {', '.join(names)}",
            "got": "string",
            "allowed": names,
        }
        raise Problem(
            ErrorCode.UNKNOWN_PRESET, f"There is no such preset; known: {', '.join(names)}", details=[detail]
        )
    defaults = PRESETS[name].defaults
    return {**defaults, **{key: value for key, value in data.items() if value is not None or key not in defaults}}
