"""Where a runner finds a model's files: below its own models root, never outside of it."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dreamforge import models_root
from dreamforge.checkpoints import place
from dreamforge.errors import ErrorCode, JobError
from dreamforge.models import FileRole, ModelFile, ModelKind, Provenance
from dreamforge.models_root import InstalledModel
from dreamforge.spec import ModelRef

DATA = {"model.safetensors": b"weights", "config/model_index.json": b"{}", "config/tokenizer/vocab.json": b"words"}


def install(root: Path, version: str = "1.0") -> InstalledModel:
    """A model as ``dreamforge model download`` leaves it, but for the meaning of its bytes."""
    files = tuple(
        ModelFile(
            path=path,
            role=FileRole.CHECKPOINT if path.endswith(".safetensors") else FileRole.CONFIG,
            size_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
        )
        for path, data in DATA.items()
    )
    model = InstalledModel(
        slug="sdxl-x", version=version, kind=ModelKind.SDXL_CHECKPOINT, name="X", source_uri="file:x", files=files,
        provenance=Provenance(source="file", ref="x"), verified_at=datetime.now(UTC),
    )  # fmt: skip
    folder = models_root.write(root, model)
    for path, data in DATA.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return model


def reference(folder_path: str | None, **facts: object) -> ModelRef:
    given = {"id": "sdxl-x@1.0", "name": "x", "kind": "sdxl-checkpoint", "version": "1.0", "folder_path": folder_path}
    return ModelRef.model_validate({**given, **facts})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    install(tmp_path / "root")
    return tmp_path / "root"


def refusal(model: ModelRef, root: Path | None) -> JobError:
    with pytest.raises(JobError) as caught:
        place.located(model, root)
    return caught.value


def test_the_place_below_the_root_wins_over_the_path_of_another_machine(root: Path):
    model = reference("sdxl-checkpoint/sdxl-x@1.0/model.safetensors", path="/elsewhere/model.safetensors")
    found = place.located(model, root)
    assert found.path == str(root / "sdxl-checkpoint/sdxl-x@1.0/model.safetensors")
    assert found.model_copy(update={"path": model.path}) == model


def test_without_a_root_the_path_counts(root: Path):
    model = reference("sdxl-checkpoint/sdxl-x@1.0/model.safetensors", path="/elsewhere/model.safetensors")
    assert place.located(model, None) is model
    by_hand = reference(None, path="/by/hand.safetensors")
    assert place.located(by_hand, root) is by_hand
    error = refusal(reference("sdxl-checkpoint/sdxl-x@1.0"), None)
    assert (error.code, "DF_MODELS_ROOT" in error.message) == (ErrorCode.MODEL_MISSING, True)


def test_a_folder_is_read_by_its_descriptor(root: Path):
    found = place.located(reference("sdxl-checkpoint/sdxl-x@1.0"), root)
    assert found.path == str(root / "sdxl-checkpoint/sdxl-x@1.0/model.safetensors")
    assert (found.sha256, found.size_bytes) == (hashlib.sha256(b"weights").hexdigest(), len(b"weights"))
    assert found.name == "X"


def test_a_folder_must_be_the_model_that_was_asked_for(root: Path):
    folder = "sdxl-checkpoint/sdxl-x@1.0"
    assert "sdxl-x@1.0" in refusal(reference(folder, id="sdxl-y@1.0"), root).message
    assert refusal(reference(folder, sha256="0" * 64), root).code is ErrorCode.MODEL_INVALID
    (root / folder / "model.json").write_text("{}")
    assert refusal(reference(folder), root).code is ErrorCode.MODEL_INVALID
    (root / folder / "model.json").unlink()
    assert refusal(reference(folder), root).code is ErrorCode.MODEL_MISSING


@pytest.mark.parametrize(
    "below",
    [
        "sdxl-checkpoint/absent@1/model.safetensors",
        "sdxl-checkpoint/sdxl-x@1.0/model.safetensors/x",
        "nul\0",
        "x" * 300,
    ],
)
def test_what_is_not_there_is_missing(below: str, root: Path):
    assert refusal(reference(below), root).code is ErrorCode.MODEL_MISSING


@pytest.mark.parametrize("below", ["../secret.safetensors", "/etc/passwd", "a/../../secret.safetensors", "link"])
def test_nothing_outside_the_root_is_loaded(below: str, root: Path):
    (root / "a").mkdir()
    (root.parent / "secret.safetensors").write_bytes(b"secret")
    (root / "link").symlink_to(root.parent / "secret.safetensors")
    error = refusal(reference(below), root)
    assert (error.code, "models root" in error.message) == (ErrorCode.MODEL_INVALID, True)


def test_a_linked_folder_may_not_lead_outside(root: Path):
    model = install(root.parent / "other", "2.0")
    (root / model.folder).symlink_to(root.parent / "other" / model.folder)
    error = refusal(reference(model.folder, id=model.id), root)
    assert (error.code, "models root" in error.message) == (ErrorCode.MODEL_INVALID, True)


def test_links_inside_the_root_are_fine(root: Path):
    stored = root / "store" / "x.safetensors"
    stored.parent.mkdir()
    (root / "sdxl-checkpoint/sdxl-x@1.0/model.safetensors").rename(stored)
    (root / "sdxl-checkpoint/sdxl-x@1.0/model.safetensors").symlink_to(stored)
    assert place.located(reference("sdxl-checkpoint/sdxl-x@1.0/model.safetensors"), root).path


def test_a_root_that_is_a_link_is_fine(root: Path):
    (root.parent / "link").symlink_to(root)
    found = place.located(reference("sdxl-checkpoint/sdxl-x@1.0/model.safetensors"), root.parent / "link")
    assert found.path == str(root.parent / "link/sdxl-checkpoint/sdxl-x@1.0/model.safetensors")


def test_companions_must_be_what_was_installed(root: Path):
    folder = root / "sdxl-checkpoint/sdxl-x@1.0"
    place.check_companions(folder)
    place.check_companions(root)  # not an installed model: nothing to compare with
    vocab = folder / "config/tokenizer/vocab.json"
    vocab.write_bytes(b"worts")
    with pytest.raises(JobError, match=r"vocab\.json") as caught:
        place.check_companions(folder)
    assert caught.value.code is ErrorCode.MODEL_INVALID
    vocab.unlink()
    with pytest.raises(JobError, match=r"vocab\.json") as caught:
        place.check_companions(folder)
    assert caught.value.code is ErrorCode.MODEL_MISSING
    vocab.symlink_to(root.parent / "anything")
    with pytest.raises(JobError):
        place.check_companions(folder)
