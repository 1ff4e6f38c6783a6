"""`dreamforge model convert`, and converting right after a model was installed."""

import hashlib
import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dreamforge import models_root
from dreamforge.models_root import InstalledModel
from dreamforge_cli.main import app
from dreamforge_cli.models import conversion
from tests import tiny_sdxl
from tests.adoption import adopted
from tests.model_kit import checkpoint, open_shops

OK, FOUND_WRONG, USAGE, INTEGRITY = 0, 1, 2, 4
needs_sdxl = pytest.mark.skipif(tiny_sdxl.missing_library() is not None, reason=str(tiny_sdxl.missing_library()))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("DF_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "models"


def model(*arguments: str | Path, root: Path, status: int = OK) -> str:
    """Run the command; all that it says."""
    line = ["model", *map(str, arguments), "--root", str(root)]
    done = CliRunner().invoke(app, line, catch_exceptions=False)
    assert done.exit_code == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def described(root: Path) -> InstalledModel:
    ((_, found, problem),) = models_root.scan(root)
    assert problem is None
    assert found is not None
    return found


def test_without_the_libraries_it_says_how_before_anything_is_fetched(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(conversion, "missing_libraries", lambda: ["torch", "diffusers"])
    with open_shops() as shops:
        for name, value in shops.environment.items():
            monkeypatch.setenv(name, value)
        shops.repository("acme/one", checkpoint("one"))
        said = model("download", "hf:acme/one", "--convert", root=root, status=USAGE)
        assert "torch, diffusers" in said
        assert "python -m dreamforge_runner convert" in said
        monkeypatch.setenv("DF_MODEL_CONVERT", "1")
        model("download", "hf:acme/one", root=root, status=USAGE)
        assert (shops.sent_bytes, root.exists()) == (0, False)
        model("download", "hf:acme/one", "--no-convert", root=root)
    assert described(root).conversion is None
    assert "torch, diffusers" in model("convert", "sdxl-one", root=root, status=USAGE)
    assert "no model" in model("convert", "sdxl-two", root=root, status=USAGE)


@needs_sdxl
@pytest.mark.sdxl
def test_a_conversion_that_fails_leaves_the_installed_model(root: Path, monkeypatch: pytest.MonkeyPatch):
    with open_shops() as shops:
        for name, value in shops.environment.items():
            monkeypatch.setenv(name, value)
        shops.repository("acme/one", checkpoint("one"))
        said = model("download", "hf:acme/one", "--convert", root=root, status=INTEGRITY)
    assert "is installed" in said
    assert "can't be loaded" in said
    assert described(root).conversion is None


@needs_sdxl
@pytest.mark.sdxl
def test_from_a_checkpoint_to_its_converted_files_alone(root: Path, monkeypatch: pytest.MonkeyPatch):
    tiny = tiny_sdxl.cached()
    adopted(root, tiny.checkpoint, config=tiny.config, copy=True)
    said = model("convert", "sdxl-tiny-sdxl", "--dtype", "float16", "--json", root=root)
    told = json.loads(said[: said.index("}") + 1])
    assert (told["event"], told["dtype"]) == ("converted", "float16")
    folder = root / described(root).folder
    assert "already" in model("convert", "sdxl-tiny-sdxl", root=root)
    assert "ok, " in model("verify", root=root)

    # One bit of what only saves time: said, mended, and no reason to do without the model.
    unet = folder / "converted" / "unet.safetensors"
    good = unet.read_bytes()
    unet.unlink()
    unet.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    said = model("verify", root=root, status=FOUND_WRONG)
    assert "converted/unet.safetensors has the sha256" in said
    assert "dreamforge model convert" in said
    assert described(root).original_kept
    model("convert", "sdxl-tiny-sdxl", root=root)
    assert unet.read_bytes() == good

    monkeypatch.setenv("DF_MODEL_KEEP_ORIGINAL", "0")
    assert "the checkpoint is removed" in model("convert", "sdxl-tiny-sdxl", root=root)
    alone = described(root)
    assert not (folder / alone.checkpoint.path).exists()
    assert alone.checkpoint.sha256 == hashlib.sha256(tiny.checkpoint.read_bytes()).hexdigest()
    assert "ok, " in model("verify", root=root)
    unet.unlink()
    unet.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert "dreamforge model adopt FILE" in model("verify", root=root, status=FOUND_WRONG)  # no source has its bytes
    assert "was not kept" in model("convert", "sdxl-tiny-sdxl", root=root, status=INTEGRITY)
    model("adopt", tiny.checkpoint, "--copy", root=root)
    assert described(root).id == alone.id
    assert "ok, " in model("verify", root=root)
