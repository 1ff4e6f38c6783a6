"""Which files pass as SDXL checkpoints, and what is said of those that don't."""

import os
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamforge.checkpoints import configuration, digest, header, sdxl
from dreamforge.errors import ErrorCode, JobError
from dreamforge.spec import ModelRef
from tests import pipeline_config
from tests.tiny_sdxl import broken

GOOD = broken.encode(broken.MINIMAL)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(GOOD)
    return path


def refusal(path: Path) -> JobError:
    with pytest.raises(JobError) as caught:
        sdxl.inspect(path)
    return caught.value


def reference(path: Path, **facts: object) -> ModelRef:
    return ModelRef.model_validate(
        {"id": "m", "name": "m", "kind": "sdxl-checkpoint", "version": "1", "path": str(path), **facts}
    )


def test_a_good_file_is_described(good: Path):
    info = sdxl.inspect(good)
    assert (info.path, info.size_bytes, info.tensor_count) == (good, len(GOOD), len(broken.MINIMAL))


@pytest.mark.parametrize("case", broken.CORPUS, ids=lambda case: case.name)
def test_a_broken_file_is_refused_with_its_reason(case: broken.Broken, tmp_path: Path):
    error = refusal(case.write(tmp_path, GOOD))
    assert error.code is case.code
    assert not error.retryable
    assert case.words in error.message
    assert case.file_name in error.message


@pytest.mark.parametrize("case", broken.ON_DISK, ids=lambda case: case.name)
def test_what_bytes_alone_do_not_say_is_refused_too(case: broken.BrokenOnDisk, tmp_path: Path):
    error = refusal(case.write(tmp_path, GOOD))
    assert (error.code, case.words in error.message) == (case.code, True)


def test_a_few_pages_of_zeros_kept_as_holes_are_no_unfinished_download(tmp_path: Path):
    good = broken.encode({**broken.MINIMAL, "model.diffusion_model.zeros": [2**19]})
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write(good[: -(2**19)])
        file.truncate(len(good))
    assert path.stat().st_blocks * 512 < len(good)
    assert sdxl.inspect(path).size_bytes == len(good)


def test_pickled_code_is_not_run(tmp_path: Path):
    canary = tmp_path / "canary"
    path = tmp_path / "model.safetensors"
    path.write_bytes(broken.pickle_bomb(canary))
    error = refusal(path)
    assert error.code is ErrorCode.MODEL_INVALID
    assert "pickle" in error.message
    assert not canary.exists()


@pytest.mark.parametrize("name", ["absent.safetensors", "absent/model.safetensors", "nul\0.safetensors"])
def test_an_absent_file_is_missing(name: str, tmp_path: Path):
    error = refusal(tmp_path / name)
    assert error.code is ErrorCode.MODEL_MISSING
    assert str(tmp_path) in error.message or "null" in error.message


def test_a_link_to_itself_is_missing(tmp_path: Path):
    loop = tmp_path / "loop.safetensors"
    loop.symlink_to(loop)
    assert refusal(loop).code is ErrorCode.MODEL_MISSING


def test_what_is_not_a_file_is_refused_without_opening_it(tmp_path: Path):
    pipe = tmp_path / "pipe.safetensors"
    os.mkfifo(pipe)  # Opening it would wait for a writer for ever.
    folder = tmp_path / "folder.safetensors"
    folder.mkdir()
    assert [refusal(path).code for path in (pipe, folder)] == [ErrorCode.MODEL_INVALID] * 2


def test_a_link_to_a_good_file_is_good(good: Path, tmp_path: Path):
    link = tmp_path / "link.safetensors"
    link.symlink_to(good)
    assert sdxl.inspect(link).size_bytes == len(GOOD)


def _read(raw: bytes) -> object:
    return header.read(BytesIO(raw), len(raw))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=4), st.integers(0, len(GOOD)))
def test_damage_never_raises_anything_else(edits: list[tuple[int, int]], length: int):
    raw = bytearray(GOOD)
    for position, value in edits:
        raw[position] = value
    try:
        _read(bytes(raw[:length]))
    except header.HeaderError:
        return
    assert length == len(GOOD)


def test_recorded_facts_must_match(good: Path):
    info = sdxl.inspect(good)
    known = digest.sha256(good)
    assert sdxl.verify(reference(good), info) == known
    assert sdxl.verify(reference(good, size_bytes=len(GOOD), sha256=known.upper()), info) == known
    for facts in ({"size_bytes": len(GOOD) + 1}, {"sha256": "0" * 64}):
        with pytest.raises(JobError) as caught:
            sdxl.verify(reference(good, **facts), info)
        assert caught.value.code is ErrorCode.MODEL_INVALID


def test_hashes_are_remembered_until_the_file_changes(good: Path, tmp_path: Path):
    cache = tmp_path / "new" / "cache"
    first = digest.sha256(good, cache)
    (entry,) = cache.iterdir()
    entry.write_text("f" * 64)  # Only a reader of the cache can know this.
    assert digest.sha256(good, cache) == "f" * 64
    good.write_bytes(broken.encode({**broken.MINIMAL, "one.more": [1]}))
    changed = digest.sha256(good, cache)
    assert changed not in {first, "f" * 64}
    assert changed == digest.sha256(good)


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 64])
def test_a_damaged_cache_is_not_believed(content: bytes, good: Path, tmp_path: Path):
    right = digest.sha256(good, tmp_path / "cache")
    (entry,) = (tmp_path / "cache").iterdir()
    entry.write_bytes(content)
    assert digest.sha256(good, tmp_path / "cache") == right


def test_a_cache_that_cannot_be_written_costs_only_time(good: Path, tmp_path: Path):
    (tmp_path / "file").write_text("not a folder")
    assert digest.sha256(good, tmp_path / "file" / "cache") == digest.sha256(good)


def test_the_first_memory_that_knows_is_asked_and_then_all_know(good: Path, tmp_path: Path):
    shared, own = digest.memory_of(tmp_path), tmp_path / "own"
    right = digest.sha256(good, None, shared, own)
    (entry,) = own.iterdir()
    assert (shared / entry.name).read_text() == entry.read_text() == right
    (shared / entry.name).write_text("f" * 64)
    assert digest.sha256(good, shared, own) == "f" * 64
    assert digest.sha256(good, own, shared) == right


def test_what_was_computed_elsewhere_is_remembered(good: Path, tmp_path: Path):
    digest.remember(good, "e" * 64, tmp_path / "memory")
    assert digest.sha256(good, tmp_path / "memory") == "e" * 64
    moved = good.rename(tmp_path / "moved.safetensors")
    assert digest.sha256(moved, tmp_path / "memory") == "e" * 64
    digest.remember(tmp_path / "gone", "e" * 64, tmp_path / "memory")


def test_a_file_changed_in_place_with_its_old_time_is_taken_for_the_old_one(good: Path, tmp_path: Path):
    """The price of not reading gigabytes, written down; ``dreamforge model verify`` asks no memory."""
    before, first = good.stat(), digest.sha256(good, tmp_path / "memory")
    with good.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    os.utime(good, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert digest.sha256(good, tmp_path / "memory") == first != digest.sha256(good)


def test_hashing_what_is_gone_says_missing(tmp_path: Path):
    with pytest.raises(JobError) as caught:
        digest.sha256(tmp_path / "gone.safetensors")
    assert caught.value.code is ErrorCode.MODEL_MISSING


@pytest.mark.parametrize("beside", ["model", "model.config", "config"])
def test_the_configuration_is_found_beside_the_checkpoint(beside: str, good: Path):
    folder = pipeline_config.write(good.parent / beside)
    assert configuration.find(good) == folder


def test_the_configuration_setting_wins_and_is_the_only_place(good: Path, tmp_path: Path):
    pipeline_config.write(good.parent / "config")
    chosen = pipeline_config.write(tmp_path / "elsewhere")
    assert configuration.find(good, chosen) == chosen
    with pytest.raises(JobError) as caught:
        configuration.find(good, tmp_path / "nowhere")
    assert caught.value.code is ErrorCode.MODEL_MISSING
    assert "nowhere" in caught.value.message


def test_a_missing_configuration_names_every_place_looked_at(good: Path):
    with pytest.raises(JobError) as caught:
        configuration.find(good)
    assert caught.value.code is ErrorCode.MODEL_MISSING
    for place in ("model", "model.config", "config"):
        assert str(good.parent / place) in caught.value.message


@pytest.mark.parametrize("file", pipeline_config.FILES)
def test_a_configuration_must_be_complete(file: str, good: Path):
    folder = pipeline_config.write(good.parent / "config")
    (folder / file).unlink()
    with pytest.raises(JobError) as caught:
        configuration.find(good)
    assert caught.value.code is ErrorCode.MODEL_MISSING
    assert file.rpartition("/")[2] in caught.value.message


@pytest.mark.parametrize(
    "changes",
    [
        {"_class_name": "StableDiffusionPipeline"},
        {"_class_name": None},
        {"unet": ["evil_module", "UNet2DConditionModel"]},
        {"unet": ["diffusers", "Evil"]},
        {"unet": None},
        {"unet": ["diffusers"]},
        {"scheduler": ["os", "system"]},
        {"image_encoder": ["evil_module", "Encoder"]},
        {"safety_checker": ["diffusers", "Anything"]},
    ],
)
def test_a_configuration_may_name_nothing_but_sdxl(changes: dict[str, object], good: Path):
    pipeline_config.write(good.parent / "config", **changes)
    with pytest.raises(JobError) as caught:
        configuration.find(good)
    assert caught.value.code is ErrorCode.MODEL_INVALID


def test_a_scheduler_that_is_not_known_is_told_when_all_else_is_right(tmp_path: Path):
    folder = pipeline_config.write(tmp_path / "config")
    assert configuration.unknown_scheduler(folder) is None
    pipeline_config.write(folder, scheduler=["my_code", "EulerDiscreteScheduler"])
    assert configuration.unknown_scheduler(folder) == "my_code.EulerDiscreteScheduler"
    pipeline_config.write(folder, scheduler=["diffusers", "New"], unet=["my_code", "UNet"])
    with pytest.raises(JobError, match="unet"):
        configuration.unknown_scheduler(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a":' + "[" * 100_000, "\ufeff{}"])
def test_a_configuration_must_be_a_json_object(text: str, good: Path):
    folder = pipeline_config.write(good.parent / "config")
    (folder / "model_index.json").write_text(text, "utf-8")
    with pytest.raises(JobError) as caught:
        configuration.find(good)
    assert caught.value.code is ErrorCode.MODEL_INVALID
