"""From parsed JSON to a request that keeps every rule; pure."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from dreamforge import presets
from dreamforge.errors import ErrorCode
from dreamforge.spec import RenderParams
from dreamforge_api.jobs.schemas import CreateJobRequest
from dreamforge_api.models.choice import SEED_IGNORED
from dreamforge_api.problem import Problem, invalid_body

_PARAMS = set(RenderParams.model_fields)


def validated(data: Any) -> CreateJobRequest:
    """The request in ``data``; raises :class:`Problem` (422)."""
    try:
        return CreateJobRequest.model_validate(data)
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
    """Equal for bodies that mean the same after validation: defaults filled in, null as absent.

    What a preset fills in is left out: the model has the say there, and may say something else the next time.
    """
    open_to_preset = presets.FILLABLE - request.model_fields_set if request.preset is not None else set()
    given = request.model_dump(mode="json", exclude=set(open_to_preset))
    canonical = json.dumps(given, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def with_preset(request: CreateJobRequest, own: Mapping[str, Any]) -> CreateJobRequest:
    """The request with its preset's defaults where it says nothing, and the preset by its versioned name.

    ``own`` are the presets that the chosen model brings. Raises :class:`Problem` (422).
    """
    if request.preset is None:
        return request
    mine = presets.read(own)
    meant = presets.requestable(mine)
    if request.preset not in meant:
        raise _unknown_preset(sorted(meant))
    name = meant[request.preset]
    fills = presets.offered(mine)[name].fills
    unset = {key: value for key, value in fills.items() if key not in request.model_fields_set}
    return request.model_copy(update={**unset, "preset": name})


def _unknown_preset(names: list[str]) -> Problem:
    detail = {
        "pointer": "/preset",
        "field": "preset",
        "rule": "unknown_preset",
        "message": f"Must be one of: {', '.join(names)}",
        "got": "string",
        "allowed": names,
    }
    text = f"The model has no such preset; it has {', '.join(names)}"
    return Problem(ErrorCode.UNKNOWN_PRESET, text, details=[detail])
