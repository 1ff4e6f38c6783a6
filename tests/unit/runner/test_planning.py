"""Which items are rendered, with which seed, and what earlier attempts left."""

import hashlib
import json
from pathlib import Path

from dreamforge.spec import ImageFormat, Shard
from dreamforge.storage.filesystem import FilesystemStore
from dreamforge_runner import planning
from dreamforge_runner.planning import StoredItem
from tests.unit.runner.events_kit import make_spec


def put(store: FilesystemStore, spec, index: int, seed: int) -> StoredItem:
    data = f"image {index} {seed}".encode()
    item = StoredItem(
        item_index=index,
        key=planning.artifact_key(spec, index, seed),
        seed=seed,
        width=spec.params.width,
        height=spec.params.height,
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        backend="sketch",
        source_type="algorithmicMedia",
    )
    store.put(item.key, data, content_type="image/png", sha256=item.sha256, metadata=planning.object_metadata(item))
    return item


def test_a_given_seed_counts_for_one_image_only():
    assert planning.draw_seed(make_spec(params={"seed": 5}), 0) == 5
    many = make_spec(params={"seed": 5, "count": 50})
    drawn = {planning.draw_seed(many, index) for index in range(50)}
    assert len(drawn) == 50
    assert all(0 <= seed < 2**32 for seed in drawn)


def test_a_seed_that_was_drawn_stays():
    spec = make_spec(params={"count": 2}, seeds={1: 99})
    assert planning.draw_seed(spec, 1) == 99


def test_stored_items_are_found_with_all_that_an_event_needs(tmp_path: Path):
    store, spec = FilesystemStore(tmp_path, None), make_spec(params={"count": 3})
    items = {index: put(store, spec, index, 10 + index) for index in (0, 2)}
    found = planning.find_stored(spec, store)
    assert found == items
    assert planning.to_render(spec, found) == [1]


def test_a_shard_looks_after_its_own_items(tmp_path: Path):
    store, whole = FilesystemStore(tmp_path, None), make_spec(params={"count": 7})
    spec = make_spec(params={"count": 7}, shard=Shard(index=1, count=3))
    for index in range(5):
        put(store, whole, index, 1)
    found = planning.find_stored(spec, store)
    assert set(found) == {1, 4}
    assert planning.to_render(spec, {}) == [1, 4]


def test_what_does_not_belong_is_not_taken_for_ours(tmp_path: Path):
    """A seed that lost, another size, another format, the manifest: none of them is this job's item 0."""
    store = FilesystemStore(tmp_path, None)
    spec = make_spec(params={"count": 2}, seeds={0: 5})
    put(store, spec, 0, 6)
    put(store, make_spec(params={"count": 2, "width": 512}), 0, 5)
    put(store, make_spec(params={"count": 2, "format": ImageFormat.JPG}), 0, 5)
    put(store, make_spec(params={"count": 9}), 8, 5)
    manifest = planning.manifest(spec, [])
    key = planning.artifact_key(spec, 0, 5).rpartition("/")[0] + "/manifest.json"
    store.put(key, manifest, content_type="application/json", sha256=hashlib.sha256(manifest).hexdigest())
    assert planning.find_stored(spec, store) == {}


def put_manifest(store: FilesystemStore, spec, data: bytes) -> None:
    key = planning.artifact_key(spec, 0, 5).rpartition("/")[0] + "/manifest.json"
    store.put(key, data, content_type="application/json", sha256=hashlib.sha256(data).hexdigest())


def test_what_a_manifest_names_is_taken_whatever_seeds_were_given(tmp_path: Path):
    """Its attempt had all images; whether its events or this attempt's arrive first, rows and manifest agree."""
    store, spec = FilesystemStore(tmp_path, None), make_spec(params={"count": 2}, seeds={0: 5, 1: 6})
    put(store, spec, 0, 5)
    named = {index: put(store, spec, index, 20 + index) for index in (0, 1)}
    put_manifest(store, spec, planning.manifest(spec, named.values()))

    assert planning.find_stored(spec, store) == named


def test_a_manifest_counts_only_for_what_is_there(tmp_path: Path):
    store, spec = FilesystemStore(tmp_path, None), make_spec(params={"count": 2}, seeds={1: 6})
    named = {index: put(store, spec, index, 20 + index) for index in (0, 1)}
    put_manifest(store, spec, planning.manifest(spec, named.values()))
    store.delete(named[1].key)

    found = planning.find_stored(spec, store)
    assert found == {0: named[0]}
    assert planning.draw_seed(spec, 1) == 6


def test_a_broken_manifest_is_none(tmp_path: Path):
    store, spec = FilesystemStore(tmp_path, None), make_spec(params={"count": 2})
    item = put(store, spec, 0, 5)
    put_manifest(store, spec, b'{"items": [1')

    assert planning.find_stored(spec, store) == {0: item}


def test_the_manifest_lists_items_in_order(tmp_path: Path):
    store, spec = FilesystemStore(tmp_path, None), make_spec(params={"count": 2})
    items = [put(store, spec, index, index) for index in (1, 0)]
    document = json.loads(planning.manifest(spec, items))
    assert (document["schema_version"], document["job_id"]) == (1, str(spec.job_id))
    assert [row["item_index"] for row in document["items"]] == [0, 1]
    assert document["items"][0] == {
        "item_index": 0,
        "key": items[1].key,
        "sha256": items[1].sha256,
        "size_bytes": items[1].size_bytes,
        "seed": 0,
        "width": 1024,
        "height": 1024,
    }


def test_batches_keep_the_order_and_lose_nothing():
    assert planning.batches([1, 4, 7, 10], 3) == [[1, 4, 7], [10]]
    assert planning.batches([1, 2], 1) == [[1], [2]]
    assert planning.batches([], 4) == []


def test_the_plan_of_a_stored_item_comes_back(tmp_path: Path):
    store, spec = FilesystemStore(tmp_path, None), make_spec(params={"count": 2})
    key = planning.artifact_key(spec, 0, 5)
    item = StoredItem(0, key, 5, 256, 256, 3, hashlib.sha256(b"abc").hexdigest(), "sdxl", "x", plan="hopper@1")
    store.put(key, b"abc", content_type="image/png", sha256=item.sha256, metadata=planning.object_metadata(item))
    assert planning.find_stored(spec, store)[0].plan == "hopper@1"
