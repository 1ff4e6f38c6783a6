"""What an image says about itself, as data: the same in its file, in its event and in its row."""

import dreamforge
from dreamforge.spec import RenderSpec

_SKETCH_NOTE = "Drawn by the sketch backend: an algorithm, not a diffusion model."


def describe(
    spec: RenderSpec, item_index: int, seed: int, backend: str, source_type: str, plan: str | None = None
) -> dict[str, object]:
    """The FR-022 fields and what else makes the picture reproducible; the same for file and event.

    ``plan`` is the backend's word for how it rendered (numbers, kernels, batch), where it has more than one way.
    """
    params = spec.params
    fields: dict[str, object] = {
        "prompt": params.prompt,
        "negative_prompt": params.negative_prompt,
        "seed": seed,
        "scheduler": params.scheduler.value,
        "steps": params.steps,
        "guidance": params.guidance,
        "width": params.width,
        "height": params.height,
        "model_id": spec.model.id,
        "model_version": spec.model.version,
        "checkpoint_hash": spec.model.sha256,
        "backend": backend,
        "digital_source_type": source_type,
        "job_id": str(spec.job_id),
        "item_index": item_index,
        "version": dreamforge.__version__,
    }
    if params.guidance_cutoff is not None:
        fields["guidance_cutoff"] = params.guidance_cutoff
    if plan is not None:
        fields["plan"] = plan
    if backend == "sketch":
        fields["note"] = _SKETCH_NOTE
    return fields
