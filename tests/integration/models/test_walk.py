"""docs/models.md: every `dreamforge model` line of it runs, in order, against the imitations."""

import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from dreamforge.models import EPICREALISM
from dreamforge_cli.main import app
from tests.contract.project import ROOT
from tests.model_kit import BASE, BASE_COMMIT, CONFIG, Shops, checkpoint, open_shops

PAGE = (ROOT / "docs/models.md").read_text(encoding="utf-8")
LINES = re.findall(r"^\$ dreamforge (model .+)$", PAGE, re.M)


@pytest.fixture
def shops() -> Iterator[Shops]:
    """What the page downloads, under its real names."""
    with open_shops() as opened:
        more = {f"sd_xl_base_1.0{tail}.safetensors": checkpoint(tail or "base") for tail in ("", "_0.9vae")}
        opened.hf.add(BASE, {**CONFIG, **more}, commit=BASE_COMMIT)
        opened.civitai.add_checkpoint(277058, 646523, "epiCRealism XL", checkpoint("epic"), "v8-KiSS")
        yield opened


def test_the_page_runs(shops: Shops, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("DF_")]:
        monkeypatch.delenv(name)
    for name, value in {**shops.environment, "DF_DATABASE_URL": database_url, "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "epicrealismXL.safetensors").write_bytes(checkpoint("mine"))
    said = {}
    assert len(LINES) >= 10
    for line in LINES:
        words = [os.path.expanduser(re.sub(r"^/(mnt|srv)\b", str(tmp_path), word)) for word in shlex.split(line)]
        done = CliRunner().invoke(app, words, catch_exceptions=False)
        assert done.exit_code == 0, f"{line}: {done.stdout}{done.stderr}"
        said[line] = done.stdout
    assert f"{EPICREALISM}@" in said["model list"]
    for told in re.findall(r"^(sdxl\S+) is installed$", PAGE, re.M):
        assert any(f"{told} is installed" in text for text in said.values()), told


def test_a_model_whose_files_are_gone_leaves_the_registry_too(
    shops: Shops, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**shops.environment, "DF_DATABASE_URL": database_url}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "gone"

    def run(*words: str) -> int:
        line = ["model", *words, "--root", str(root)]
        return CliRunner().invoke(app, line, catch_exceptions=False).exit_code

    assert run("download", "civitai:277058") == 0
    (folder,) = (root / "sdxl-checkpoint").iterdir()
    shutil.rmtree(folder)
    assert run("remove", folder.name) == 0
    assert run("remove", folder.name) == 2
    with psycopg.connect(database_url.replace("+psycopg", "", 1)) as connection:
        rows = connection.execute("SELECT 1 FROM models WHERE id = %s", [folder.name]).fetchall()
        query = "SELECT kind FROM model_events WHERE model_id = %s ORDER BY id"
        events = [kind for (kind,) in connection.execute(query, [folder.name])]
    assert rows == []
    assert events[-1] == "removed"
