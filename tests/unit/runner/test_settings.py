"""What the runner warms up for."""

from pathlib import Path

import pytest

from dreamforge_runner.settings import RunnerSettings
from tests.models_on_disk import install


@pytest.fixture
def root(tmp_path: Path) -> Path:
    install(tmp_path / "models")
    return tmp_path / "models"


def test_an_installed_model_counts_as_a_checkpoint(root: Path):
    assert RunnerSettings(models_root=root).has_checkpoint
    assert RunnerSettings(models_root=root, runner_backend="sdxl").prewarm_sdxl
    assert not RunnerSettings(models_root=root, runner_backend="sketch").prewarm_sdxl


def test_a_damaged_or_absent_one_does_not(root: Path, tmp_path: Path):
    next(root.rglob("*.safetensors")).write_bytes(b"")
    assert not RunnerSettings(models_root=root).has_checkpoint
    assert not RunnerSettings(models_root=tmp_path / "absent").has_checkpoint
    with pytest.raises(ValueError, match=r"DF_MODELS_ROOT=/.*models"):
        RunnerSettings(models_root=root, runner_backend="sdxl")


def test_by_itself_it_warms_up_for_models_only_where_the_libraries_are(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not RunnerSettings(models_root=root).prewarm_sdxl
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert RunnerSettings(models_root=root).prewarm_sdxl
    assert not RunnerSettings().prewarm_sdxl
