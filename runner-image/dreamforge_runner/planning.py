"""Which items are left to render, which are stored already, and with which seed each is drawn."""

import json
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from dreamforge import keys
from dreamforge.keys import ArtifactName
from dreamforge.spec import MAX_SEED, RenderSpec
from dreamforge.storage.base import ObjectInfo, ObjectNotFound, Storage

_SCHEMA_VERSION = 1


@dataclass(frozen=True)
class StoredItem:
    """One image in the object store, with all that an ``artifact.stored`` event needs."""

    item_index: int
    key: str
    seed: int
    width: int
    height: int
    size_bytes: int
    sha256: str
    backend: str
    source_type: str
    seconds: float | None = None
    checkpoint_hash: str | None = None
    plan: str | None = None


def given_seed(spec: RenderSpec, item_index: int) -> int | None:
    """The seed an item must have: one that an earlier attempt drew, or the client's for a single image (FR-008)."""
    drawn = spec.seeds.get(item_index)
    if drawn is not None:
        return drawn
    return spec.params.seed if spec.params.count == 1 else None


def draw_seed(spec: RenderSpec, item_index: int) -> int:
    """The item's seed; call this right before its rendering begins and write the answer down at once."""
    given = given_seed(spec, item_index)
    return secrets.randbelow(MAX_SEED + 1) if given is None else given


def with_checkpoint_hash(spec: RenderSpec, checkpoint_hash: str | None) -> RenderSpec:
    """The spec with the sha256 of the file that was really loaded; a model placed by hand comes without one."""
    if checkpoint_hash is None:
        return spec
    return spec.model_copy(update={"model": spec.model.model_copy(update={"sha256": checkpoint_hash})})


def to_render(spec: RenderSpec, stored: Mapping[int, StoredItem]) -> list[int]:
    """The shard's items that are not stored, in order."""
    return [index for index in spec.shard.items(spec.params.count) if index not in stored]


def batches(items: Sequence[int], size: int) -> list[list[int]]:
    """Items as they are rendered together: ``size`` at a time, in order; the last may be fewer."""
    return [list(items[start : start + size]) for start in range(0, len(items), size)]


def artifact_key(spec: RenderSpec, item_index: int, seed: int) -> str:
    params = spec.params
    name = ArtifactName(item_index, params.width, params.height, seed, params.format.value)
    return keys.artifact_key(spec.job_id, spec.step.value, spec.created_at, name, spec.user)


def find_stored(spec: RenderSpec, storage: Storage) -> dict[int, StoredItem]:
    """What earlier attempts stored. Raises ``StorageError``.

    A manifest says which images make up the step, whatever seeds this attempt was given: the attempt that wrote it
    had all of them, and its events may be on their way still. Another choice here would leave two truths.
    """
    found: dict[int, StoredItem] = {}
    there = list(storage.list(keys.step_prefix(spec.job_id, spec.step.value, spec.user)))
    chosen = _named_by_manifest(spec, storage, {listed.key for listed in there})
    for listed in there:
        name = keys.parse_artifact_key(listed.key)
        if name is None or name.item_index in found:
            continue
        if listed.key != chosen.get(name.item_index, _key_if_ours(spec, name)):
            continue
        info = storage.head(listed.key)
        if info is not None and info.sha256 is not None:
            found[name.item_index] = _stored_item(name, info, info.sha256)
    return found


def object_metadata(item: StoredItem) -> dict[str, str]:
    """What stands beside the object, so that another attempt can report it again."""
    known = {"checkpoint-hash": item.checkpoint_hash, "plan": item.plan}
    return {
        **{name: value for name, value in known.items() if value is not None},
        "item-index": str(item.item_index),
        "seed": str(item.seed),
        "width": str(item.width),
        "height": str(item.height),
        "backend": item.backend,
        "source-type": item.source_type,
    }


def manifest(spec: RenderSpec, items: Iterable[StoredItem]) -> bytes:
    """The object written last: which images make up the step."""
    rows = [
        {
            "item_index": item.item_index,
            "key": item.key,
            "sha256": item.sha256,
            "size_bytes": item.size_bytes,
            "seed": item.seed,
            "width": item.width,
            "height": item.height,
        }
        for item in sorted(items, key=lambda item: item.item_index)
    ]
    document = {"schema_version": _SCHEMA_VERSION, "job_id": str(spec.job_id), "items": rows}
    return json.dumps(document, indent=1).encode()


def _named_by_manifest(spec: RenderSpec, storage: Storage, there: Collection[str]) -> dict[int, str]:
    """The key of each of the shard's items that a manifest names and the store has; empty where there is none."""
    key = keys.manifest_key(spec.job_id, spec.step.value, spec.user)
    if key not in there:
        return {}
    try:
        named = {int(item["item_index"]): str(item["key"]) for item in json.loads(storage.get(key))["items"]}
    except (ObjectNotFound, ValueError, LookupError, TypeError):
        return {}  # gone meanwhile, or not ours: what is rendered now decides
    ours = spec.shard.items(spec.params.count)
    return {index: key for index, key in named.items() if index in ours and key in there}


def _key_if_ours(spec: RenderSpec, name: ArtifactName) -> str | None:
    """The key this item would have with that seed; ``None`` when the item or the seed isn't this shard's.

    A fenced attempt may have stored an item under a seed that lost: that object is not ours, the sweep's.
    """
    if name.item_index not in spec.shard.items(spec.params.count):
        return None
    given = given_seed(spec, name.item_index)
    if given is not None and given != name.seed:
        return None
    return artifact_key(spec, name.item_index, name.seed)


def _stored_item(name: ArtifactName, info: ObjectInfo, sha256: str) -> StoredItem:
    return StoredItem(
        item_index=name.item_index,
        key=info.key,
        seed=name.seed,
        width=name.width,
        height=name.height,
        size_bytes=info.size_bytes,
        sha256=sha256,
        backend=info.metadata.get("backend", "unknown"),
        source_type=info.metadata.get("source-type", "algorithmicMedia"),
        checkpoint_hash=info.metadata.get("checkpoint-hash"),
        plan=info.metadata.get("plan"),
    )
