"""Images that are stored and that no event told of, found by the manifest: the object a runner writes last.

It happens where Redis could not be reached from a pod: the runner leaves with the truth as its exit code and its
images in the store, and its events are lost with it. What they would have said is said here, as one more attempt.
"""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ValidationError
from sqlalchemy import Engine

from dreamforge import receipt
from dreamforge.announcements import Announcement
from dreamforge.db import announced
from dreamforge.errors import DreamForgeError
from dreamforge.events import (
    ArtifactStored,
    AttemptFinished,
    AttemptStarted,
    EventBatch,
    Level,
    LogWritten,
    Outcome,
    RunnerEvent,
)
from dreamforge.jobs import StepName
from dreamforge.keys import manifest_key
from dreamforge.spec import Limits, RenderSpec
from dreamforge.storage.base import ObjectInfo, ObjectNotFound, Storage
from dreamforge_api.worker.models import render_spec

STEP = StepName.GENERATE


class NotWhole(DreamForgeError):
    """The store does not hold what the manifest of a finished step must name."""


class _Image(BaseModel):
    item_index: int
    key: str
    sha256: str
    size_bytes: int
    seed: int
    width: int
    height: int


class _Manifest(BaseModel):
    job_id: UUID
    items: list[_Image]


def recovered(engine: Engine, storage: Storage, told: Announcement) -> EventBatch | None:
    """The events of a runner that stored all of the job's images; ``None`` when the job has no open end any more.

    Raises :class:`NotWhole`, ``StorageError``, and what SQLAlchemy raises.
    """
    about = {"job_id": told.job_id, "step": STEP.value}
    with engine.connect() as connection:
        row = connection.execute(announced.OPEN_JOB, about).one_or_none()
        if row is None:
            return None
        spec = render_spec(row, Limits())
        known = set(connection.execute(announced.STORED_ITEMS, about).scalars())
    images = _images(storage, spec)
    events = _Events()
    events.add(AttemptStarted, backend="unknown", runner=told.ref[:256])
    note = f"no runner told of {spec.params.count - len(known)} images; they were found in the store"
    events.add(LogWritten, level=Level.WARNING, code="images.recovered", message=note)
    for image in images:
        if image.item_index not in known:
            events.add(ArtifactStored, **_stored(storage, spec, image))
    events.add(AttemptFinished, outcome=Outcome.SUCCEEDED, exit_code=0, items_done=len(images))
    return EventBatch(
        job_id=spec.job_id,
        step=STEP,
        shard=0,
        attempt_id=f"found-{told.uid}",
        correlation_id=spec.correlation_id,
        prev_seq=0,
        events=events.said,
    )


class _Events:
    """Numbers what is said."""

    def __init__(self) -> None:
        self.said: list[RunnerEvent] = []

    def add(self, kind: type[Any], **fields: Any) -> None:
        self.said.append(kind(seq=len(self.said) + 1, ts=datetime.now(UTC), **fields))


def _images(storage: Storage, spec: RenderSpec) -> list[_Image]:
    try:
        text = storage.get(manifest_key(spec.job_id, STEP.value, spec.user))
        manifest = _Manifest.model_validate_json(text)
    except ObjectNotFound:
        raise NotWhole("the step's manifest is not in the store") from None
    except ValidationError:
        raise NotWhole("the step's manifest can't be read") from None
    named = {image.item_index for image in manifest.items}
    if manifest.job_id != spec.job_id or named != set(range(spec.params.count)):
        raise NotWhole(f"the step's manifest names {len(named)} of {spec.params.count} images")
    return manifest.items


def _stored(storage: Storage, spec: RenderSpec, image: _Image) -> dict[str, Any]:
    info = storage.head(image.key)
    if info is None or info.sha256 != image.sha256:
        raise NotWhole(f"image {image.item_index} is not in the store as its manifest says")
    return {
        **image.model_dump(exclude={"seed"}),
        "item_seed": image.seed,
        "format": spec.params.format,
        "metadata": _receipt(spec, image, info),
    }


def _receipt(spec: RenderSpec, image: _Image, info: ObjectInfo) -> dict[str, object]:
    backend = info.metadata.get("backend", "unknown")
    source_type = info.metadata.get("source-type", "algorithmicMedia")
    plan = info.metadata.get("plan")
    described = receipt.describe(spec, image.item_index, image.seed, backend, source_type, plan)
    rendered_with = info.metadata.get("checkpoint-hash")
    return {**described, "checkpoint_hash": rendered_with} if rendered_with else described
