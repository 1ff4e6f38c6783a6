"""Converted files: when they stand for their checkpoint, and what a model still needs once that is gone."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dreamforge import models_root
from dreamforge.checkpoints import converted, digest, place
from dreamforge.errors import ErrorCode, JobError
from dreamforge.models import FileRole
from dreamforge.models_root import Conversion, InstalledModel
from dreamforge.spec import ModelRef
from tests.converted_on_disk import install_converted


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "models"


def found(root: Path) -> models_root.Found:
    (one,) = models_root.scan(root)
    return one


def why_not(root: Path, model: InstalledModel, **changes: Any) -> str | None:
    conversion = model.conversion
    assert conversion is not None
    told = conversion.model_copy(update=changes)
    memory = digest.memory_of(root)
    return converted.why_not(root / model.folder, told, model.checkpoint.sha256, "float32", [memory])


def weights(root: Path, model: InstalledModel, part: str = "unet") -> Path:
    return root / model.folder / converted.path_of(part)


def replaced(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)


def test_what_was_written_can_be_loaded(root: Path):
    model = install_converted(root)
    assert why_not(root, model) is None
    assert models_root.read(root / model.folder) == model
    assert {file.role for file in model.present[-4:]} == {FileRole.CONVERTED}
    assert found(root).problem is None


def _flipped(path: Path) -> None:
    data = path.read_bytes()
    replaced(path, data[:-1] + bytes([data[-1] ^ 1]))


def _shorter(path: Path) -> None:
    replaced(path, path.read_bytes()[:-1])


def _no_header(path: Path) -> None:
    replaced(path, bytes(path.stat().st_size))


def _a_link_outside(path: Path) -> None:
    outside = path.parents[4] / "outside"
    path.rename(outside)
    path.symlink_to(outside)


def _a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_flipped, "other bytes"),
        (_shorter, "bytes; "),
        (_no_header, "header"),
        (Path.unlink, "can't be read"),
        (_a_link_outside, "not a file inside"),
        (_a_folder, "not a file inside"),
    ],
)
@pytest.mark.parametrize("part", converted.PARTS)
def test_damage_is_seen_in_every_part(part: str, damage: Callable[[Path], None], words: str, root: Path):
    model = install_converted(root)
    damage(weights(root, model, part))
    why = why_not(root, model)
    assert why is not None
    assert part in why
    assert words in why
    assert found(root).problem is None  # the checkpoint is there


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"converter": converted.CONVERTER + 1}, "converter"),
        ({"source_sha256": "0" * 64}, "another checkpoint"),
        ({"dtype": "bfloat16"}, "plan wants float32"),
        ({"files": ()}, "parts"),
    ],
)
def test_facts_that_do_not_fit(changes: dict[str, Any], words: str, root: Path):
    why = why_not(root, install_converted(root), **changes)
    assert why is not None
    assert words in why


def test_a_hash_that_is_remembered_is_not_computed_again(root: Path):
    model = install_converted(root)
    path = weights(root, model)
    before = path.stat()
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert why_not(root, model) is None
    assert model.conversion is not None
    asked = converted.why_not(root / model.folder, model.conversion, model.checkpoint.sha256, "float32")
    assert asked is not None  # without a memory all is read


def test_a_model_without_its_checkpoint_lives_on_its_converted_files(root: Path):
    model = install_converted(root, keep_original=False)
    assert not (root / model.folder / model.checkpoint.path).exists()
    assert found(root).problem is None
    assert model.checkpoint not in model.present
    entry = models_root.descriptor(root, model, None)
    assert entry.checkpoint_hash == hashlib.sha256(b"weights of sdxl-tiny v1").hexdigest()
    weights(root, model).unlink()
    assert "unet" in (found(root).problem or "")


def reference(model: InstalledModel, below: str, **facts: Any) -> ModelRef:
    given = {"id": model.id, "name": "n", "kind": model.kind.value, "version": "1", "folder_path": below}
    return ModelRef.model_validate(given | facts)


def test_a_runner_finds_a_checkpoint_that_was_given_up(root: Path):
    model = install_converted(root, keep_original=False)
    path = root / model.folder / model.checkpoint.path
    for below in (model.folder, f"{model.folder}/{model.checkpoint.path}"):
        assert place.located(reference(model, below), root).path == str(path)
    assert converted.original_dropped(path)
    assert converted.paths(path) == [weights(root, model, part) for part in converted.PARTS]
    place.check_companions(path.parent)
    with pytest.raises(JobError) as caught:
        place.located(reference(model, f"{model.folder}/other.safetensors"), root)
    assert caught.value.code is ErrorCode.MODEL_MISSING


def test_a_checkpoint_that_is_gone_by_accident_is_missed(root: Path):
    model = install_converted(root)
    (root / model.folder / model.checkpoint.path).unlink()
    assert "tiny.safetensors" in (found(root).problem or "")
    with pytest.raises(JobError) as caught:
        place.located(reference(model, f"{model.folder}/{model.checkpoint.path}"), root)
    assert caught.value.code is ErrorCode.MODEL_MISSING


@pytest.mark.parametrize("path", ["/nowhere/model.safetensors", "nul\0/x"])
def test_a_checkpoint_without_a_descriptor_has_none(path: str):
    assert converted.described(Path(path)) is None
    assert converted.paths(Path(path)) == [Path(path)]


def test_a_number_type_that_torch_does_not_have_is_no_descriptor(root: Path):
    conversion = install_converted(root).conversion
    assert conversion is not None
    with pytest.raises(ValueError, match="dtype"):
        Conversion.model_validate(conversion.model_dump() | {"dtype": "float128"})
