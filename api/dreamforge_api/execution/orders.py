"""What a job is on a cluster, as plain objects: the Secret with its render spec, and the RenderJob that names it."""

import base64
import hashlib
import json
import math
from typing import Any

from pydantic import ValidationError

from dreamforge.models import DEFAULT_PROVIDER, SKETCH_PROVIDER, ModelKind
from dreamforge.renderjob import names
from dreamforge.renderjob.spec import MONTH, WEEK, InputSecretRef, JobLimits, RenderJobSpec
from dreamforge.spec import Limits, RenderSpec
from dreamforge_api.execution.base import Refused


def spec_hash(spec: RenderSpec) -> str:
    """What the client asked for: a submit that is repeated after a crash, a new setting or a new seed is the same."""
    told = spec.model_dump(mode="json", include={"job_id", "step", "user", "created_at", "params"})
    canonical = json.dumps({**told, "model": spec.model.id}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def secret(spec: RenderSpec, digest: str) -> dict[str, Any]:
    """The render spec, prompts and all, for the runner's eyes."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": _metadata(spec, digest),
        "data": {names.INPUT_KEY: base64.b64encode(spec.model_dump_json().encode()).decode()},
    }


def renderjob(spec: RenderSpec, digest: str, *, backoff_limit: int, queue: str | None) -> dict[str, Any]:
    """The order to render it, without a word of the prompt. Raises ``Refused`` when no RenderJob may say it."""
    try:
        asked = _asked(spec, backoff_limit, queue)
    except ValidationError as error:
        fields = ", ".join(sorted({".".join(map(str, item["loc"])) for item in error.errors()}))
        raise Refused(f"no RenderJob can be made of the job: {fields} breaks the rules") from None
    metadata = _metadata(spec, digest)
    return {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": metadata, "spec": asked.manifest()}


def _asked(spec: RenderSpec, backoff_limit: int, queue: str | None) -> RenderJobSpec:
    name = names.resource_name(spec.job_id)
    sketch = spec.model.kind == ModelKind.SKETCH
    return RenderJobSpec.model_validate(
        {
            "job_id": spec.job_id,
            "provider": SKETCH_PROVIDER if sketch else DEFAULT_PROVIDER,
            "model_ref": {"id": spec.model.id},
            "input_secret_ref": InputSecretRef(name=name, key=names.INPUT_KEY),
            "batch": {"count": spec.params.count, "shards": spec.shard.count},
            "limits": _limits(spec),
            "retry": {"backoff_limit": backoff_limit},
            **({"gpu": {"count": 0}} if sketch else {}),
            **({"queue": {"name": queue}} if queue else {}),
        }
    )


def _metadata(spec: RenderSpec, digest: str) -> dict[str, Any]:
    return {
        "name": names.resource_name(spec.job_id),
        "labels": {
            names.LABEL_JOB_ID: str(spec.job_id),
            names.LABEL_STEP: spec.step.value,
            names.LABEL_MANAGED_BY: names.API_MANAGER,
        },
        "annotations": {
            names.ANNOTATION_SPEC_HASH: digest,
            names.ANNOTATION_CORRELATION_ID: spec.correlation_id,
        },
    }


def _limits(spec: RenderSpec) -> JobLimits:
    """The job's deadline, counted from its creation, and the runner's own bounds."""
    limits: Limits = spec.limits
    whole = WEEK
    if limits.deadline_at is not None:
        whole = max(1, math.ceil((limits.deadline_at - spec.created_at).total_seconds()))
    return JobLimits(
        start_deadline_seconds=min(whole, MONTH),
        active_deadline_seconds=min(whole, WEEK),
        item_timeout_seconds=max(1, min(math.ceil(limits.item_timeout_seconds), whole, WEEK)),
        grace_seconds=max(1, min(math.ceil(limits.grace_seconds), 600)),
    )
