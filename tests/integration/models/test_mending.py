"""A damaged model: what `model verify` says to do, and that doing it mends that model and makes no other."""

import json
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from dreamforge import models_root
from dreamforge_cli.main import app
from dreamforge_cli.models import install
from tests.model_kit import CONFIG, Shops, checkpoint, open_shops

OK, FOUND_WRONG, USAGE, DISK = 0, 1, 2, 6
SIZE = 2**20
FREE = SIZE // 2
#: Of a model that would render noise with any other's.
OWN = {**CONFIG, "scheduler/scheduler_config.json": b'{"prediction_type": "v_prediction"}'}


@pytest.fixture
def shops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shops]:
    for name in [name for name in os.environ if name.startswith("DF_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    with open_shops() as opened:
        for name, value in opened.environment.items():
            monkeypatch.setenv(name, value)
        yield opened


def model(*arguments: str | Path, status: int = OK) -> str:
    """Run the command; all that it says."""
    done = CliRunner().invoke(app, ["model", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def only(root: Path) -> models_root.InstalledModel:
    (found,) = models_root.scan(root)
    assert found.model is not None
    return found.model


def flip(path: Path) -> None:
    """Another file of the same size; it is no hard link any more."""
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def cure(*options: str | Path) -> list[str]:
    """The words that `verify` says to give to `dreamforge model`, without what is said for people behind them."""
    said = model("verify", *options, status=FOUND_WRONG)
    (line,) = re.findall(r"^  mend it: dreamforge model (.*?)(?: \(.*\))?$", said, re.M)
    return shlex.split(line)


@pytest.mark.parametrize("option", ["--root", "--data"])
def test_following_verify_mends_a_download_under_its_own_id(shops, tmp_path, option):
    given = (option, tmp_path / "a folder")
    root = tmp_path / "a folder" if option == "--root" else tmp_path / "a folder" / "models"
    shops.repository("acme/mended", checkpoint("mended"))
    model("download", "hf:acme/mended", "--id", "mine", *given)
    before = only(root)
    flip(root / before.folder / "mended.safetensors")
    words = cure(*given)
    assert words == ["download", before.source_uri, "--id", "mine", option, str(tmp_path / "a folder")]
    model(*words)
    assert only(root).id == before.id
    model("verify", *given)


def test_without_a_place_verify_names_none(shops, tmp_path, monkeypatch):
    monkeypatch.setenv("DF_MODELS_ROOT", str(tmp_path / "models"))
    shops.repository("acme/placed", checkpoint("placed"))
    model("download", "hf:acme/placed")
    before = only(tmp_path / "models")
    (tmp_path / "models" / before.folder / "placed.safetensors").unlink()
    assert cure() == ["download", before.source_uri, "--id", "sdxl-placed"]


def lying(tmp_path: Path) -> Path:
    """A checkpoint of CivitAI on this disk, with what a helper tool saved beside it, and its configuration."""
    for name, content in OWN.items():
        (tmp_path / "config" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "config" / name).write_bytes(content)
    path = tmp_path / "lying.safetensors"
    path.write_bytes(checkpoint("lying"))
    return path


@pytest.mark.parametrize("source", ["file", "civitai"])
@pytest.mark.parametrize("damage", ["lying.safetensors", "config/scheduler/scheduler_config.json"])
def test_following_verify_mends_an_adopted_model_under_its_own_id(shops, tmp_path, source, damage):
    shops.civitai.add_checkpoint(7, 22, "My Model", checkpoint("lying"))
    path, root = lying(tmp_path), tmp_path / "models"
    told = json.loads(model("adopt", path, "--id", "mine", "--root", root, "--json").splitlines()[-1])
    if source == "civitai":
        info = {"id": 22, "modelId": 7, "name": "v1.0", "model": {"name": "My Model"}}
        info["files"] = [{"id": 22, "hashes": {"SHA256": told["sha256"].upper()}}]
        model("remove", "mine", "--root", root)
        path.with_suffix(".civitai.info").write_text(json.dumps(info))
        model("adopt", path, "--id", "mine", "--root", root)
    before = only(root)
    assert before.provenance.source == source
    flip(root / before.folder / damage)
    words = cure("--root", root)
    assert words == ["adopt", "FILE", "--id", "mine", "--root", str(root)]
    copy = tmp_path / "elsewhere" / "under another name.safetensors"  # with nothing beside it
    copy.parent.mkdir()
    copy.write_bytes(path.read_bytes())
    words = [str(copy) if word == "FILE" else word for word in words]
    if damage != path.name:
        assert "--config" in model(*words, status=USAGE)
        words += ["--config", str(tmp_path / "config")]
    model(*words)
    after = only(root)
    assert (after.id, after.provenance, after.name) == (before.id, before.provenance, before.name)
    assert (root / after.folder / "config/scheduler/scheduler_config.json").read_bytes() == OWN[
        "scheduler/scheduler_config.json"
    ]
    model("verify", "--root", root)


def test_a_whole_adopted_model_is_there_already(shops, tmp_path):
    path, root = lying(tmp_path), tmp_path / "models"
    model("adopt", path, "--root", root)
    assert "is there already" in model("adopt", path, "--root", root)


@pytest.fixture
def nearly_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the check before a download; each file that comes is still held to what is free."""
    monkeypatch.setattr(install, "shutil", SimpleNamespace(disk_usage=lambda _: SimpleNamespace(free=FREE)))


def test_a_small_repair_needs_no_room_for_what_is_whole(shops, tmp_path, monkeypatch, nearly_full):
    root = tmp_path / "models"
    shops.repository("acme/large", checkpoint("large", SIZE))
    with monkeypatch.context() as roomy:
        roomy.setattr(install, "shutil", SimpleNamespace(disk_usage=lambda _: SimpleNamespace(free=4 * SIZE)))
        model("download", "hf:acme/large", "--root", root)
    folder = root / only(root).folder
    (folder / "config/vae/config.json").unlink()
    sent = shops.sent_bytes
    model("download", "hf:acme/large", "--root", root)
    assert shops.sent_bytes - sent < SIZE
    model("verify", "--root", root)
    (folder / "config/vae/config.json").unlink()
    os.truncate(folder / "large.safetensors", SIZE // 2)
    assert "nothing was fetched" in model("download", "hf:acme/large", "--root", root, status=DISK)
