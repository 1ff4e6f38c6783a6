"""What renders, for every combination of wish, checkpoint and libraries."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from dreamforge import models_root
from dreamforge.errors import ConfigurationError
from dreamforge.models import BackendMode, FileRole, ModelFile, ModelKind, Provenance
from dreamforge_cli.up.backend import choose, installed


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"x")
    return path


def nothing_missing():
    return []


def torch_missing():
    return ["torch"]


def test_auto_takes_sdxl_when_all_is_there(checkpoint, tmp_path):
    for given, default in ((checkpoint, tmp_path / "none"), (None, checkpoint)):
        choice = choose(BackendMode.AUTO, given, missing=nothing_missing, default=default)
        assert (choice.mode, choice.checkpoint) == (BackendMode.SDXL, checkpoint)
        assert str(checkpoint) in choice.said


def test_auto_without_a_checkpoint_draws_and_says_how_to_get_sdxl(tmp_path):
    choice = choose(BackendMode.AUTO, None, missing=nothing_missing, default=tmp_path / "none")
    assert (choice.mode, choice.checkpoint) == (BackendMode.AUTO, None)
    assert str(tmp_path / "none") in choice.said
    assert "not a diffusion model" in choice.said
    assert "dreamforge[sdxl]" in choice.said


def test_auto_without_libraries_draws_and_names_them(checkpoint):
    choice = choose(BackendMode.AUTO, checkpoint, missing=torch_missing)
    assert (choice.mode, choice.checkpoint) == (BackendMode.AUTO, None)
    assert "torch" in choice.said


def test_sketch_ignores_a_checkpoint(checkpoint):
    assert choose(BackendMode.SKETCH, checkpoint, missing=nothing_missing).mode is BackendMode.SKETCH


def test_sdxl_without_a_checkpoint_refuses_with_the_path(tmp_path):
    for given, default in ((tmp_path / "gone", tmp_path / "x"), (None, tmp_path / "gone")):
        with pytest.raises(ConfigurationError, match="gone"):
            choose(BackendMode.SDXL, given, missing=nothing_missing, default=default)


def test_sdxl_without_libraries_refuses_and_names_them(checkpoint):
    with pytest.raises(ConfigurationError, match="not installed: torch"):
        choose(BackendMode.SDXL, checkpoint, missing=torch_missing)


def test_a_relative_checkpoint_becomes_absolute(checkpoint, monkeypatch):
    monkeypatch.chdir(checkpoint.parent)
    choice = choose(BackendMode.SDXL, checkpoint.relative_to(checkpoint.parent), missing=nothing_missing)
    assert choice.checkpoint == checkpoint


def test_an_installed_model_counts_as_a_checkpoint(tmp_path):
    for asked in (BackendMode.AUTO, BackendMode.SDXL):
        choice = choose(asked, None, installed=["sdxl-x@1"], missing=nothing_missing, default=tmp_path / "none")
        assert (choice.mode, choice.checkpoint) == (BackendMode.SDXL, None)
        assert "sdxl-x@1" in choice.said


def test_without_libraries_an_installed_model_is_no_default(tmp_path):
    choice = choose(BackendMode.AUTO, None, installed=["sdxl-x@1"], missing=torch_missing, default=tmp_path / "none")
    assert choice.mode is BackendMode.SKETCH
    assert "torch" in choice.said


def test_a_file_that_is_named_must_be_there_whatever_is_installed(tmp_path):
    with pytest.raises(ConfigurationError, match="gone"):
        choose(BackendMode.SDXL, tmp_path / "gone", installed=["sdxl-x@1"], missing=nothing_missing)


def test_only_whole_sdxl_models_of_the_root_count(tmp_path):
    whole, broken = model_below(tmp_path, "sdxl-whole"), model_below(tmp_path, "sdxl-broken")
    (tmp_path / broken.folder / "a.safetensors").unlink()
    assert installed(tmp_path) == [whole.id]
    assert installed(tmp_path / "none") == []


def model_below(root: Path, slug: str) -> models_root.InstalledModel:
    file = ModelFile(path="a.safetensors", role=FileRole.CHECKPOINT, size_bytes=1, sha256="0" * 64)
    model = models_root.InstalledModel(
        slug=slug,
        version="1",
        kind=ModelKind.SDXL_CHECKPOINT,
        name=slug,
        source_uri="file:a",
        provenance=Provenance(source="file", ref="file:a"),
        files=(file,),
        verified_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    (models_root.write(root, model) / "a.safetensors").write_bytes(b"x")
    return model
