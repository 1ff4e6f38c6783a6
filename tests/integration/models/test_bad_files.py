"""Every file that no runner may load, as the right answer of a source: refused with its class, and no trace of it.

Its SHA-256 is the one that was announced, so only a look into the file can tell.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from dreamforge_cli.main import app
from tests.model_kit import CONFIG, Shops, checkpoint, open_shops
from tests.standins.civitai import File, Model, Version
from tests.standins.faults import Fault, Place
from tests.standins.store import Content
from tests.tiny_sdxl import TinySdxl, bombs, broken

USAGE, INTEGRITY, NOT_ALLOWED = 2, 4, 5
#: What a source offers under a name that is no ``.safetensors`` is not even asked for.
ELSEWHERE = [case for case in broken.CORPUS if case.file_name.endswith(".safetensors")]
SUFFIXES = ("ckpt", "pt", "pth", "bin", "pkl")
BOMBS = [one for one in bombs.DISGUISES if one.refused and one.name != "class-by-name"]


@pytest.fixture(scope="module")
def shops() -> Iterator[Shops]:
    with open_shops() as opened:
        yield opened


class Root:
    """A models root and a registry, and what is in them."""

    def __init__(self, path: Path, engine: Engine) -> None:
        self.path = path
        self._engine = engine

    def download(self, ref: str, status: int) -> str:
        done = CliRunner().invoke(app, ["model", "download", ref, "--root", str(self.path)], catch_exceptions=False)
        assert done.exit_code == status, done.stdout + done.stderr
        return done.stderr

    def assert_nothing_came(self) -> None:
        left = {path.relative_to(self.path).as_posix() for path in self.path.rglob("*") if path.is_file()}
        assert {name for name in left if not name.startswith((".staging/", ".hashes/"))} == set()
        # The configuration, which is good and verified, may wait there for another try.
        assert {name for name in left if "safetensors" in name.rpartition("/")[2]} == set()
        with self._engine.connect() as connection:
            assert connection.execute(text("SELECT id FROM models WHERE kind <> 'sketch'")).all() == []
            assert connection.execute(text("SELECT kind FROM model_events WHERE model_id <> 'sketch'")).all() == []


@pytest.fixture
def root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shops: Shops, engine: Engine, database_url: str
) -> Iterator[Root]:
    for name in [name for name in os.environ if name.startswith("DF_")]:
        monkeypatch.delenv(name)
    for name, value in {**shops.environment, "DF_DATABASE_URL": database_url}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    made = Root(tmp_path / "models", engine)
    yield made
    made.assert_nothing_came()


@pytest.mark.parametrize("case", ELSEWHERE, ids=lambda case: case.name)
def test_from_hugging_face(case: broken.Broken, root: Root, shops: Shops):
    name = f"acme/{case.name.replace('^', '-')}"
    shops.repository(name, case.make(checkpoint()))
    root.download(f"hf:{name}", INTEGRITY if case.name != "html" else NOT_ALLOWED)


@pytest.mark.parametrize("case", ELSEWHERE, ids=lambda case: case.name)
def test_from_civitai(case: broken.Broken, root: Root, shops: Shops):
    number = 1000 + ELSEWHERE.index(case) * 10
    file = File(number, "bad.safetensors", Content(case.make(checkpoint())), primary=True)
    shops.civitai.add(Model(number, "Bad", [Version(number, "v1", [file])]))
    root.download(f"civitai:{number}", INTEGRITY if case.name != "html" else NOT_ALLOWED)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_formats_that_can_hold_code_are_not_even_fetched(suffix: str, root: Root, shops: Shops):
    shops.hf.add(f"acme/only-{suffix}", {f"model.{suffix}": checkpoint(), **CONFIG})
    before = shops.sent_bytes
    root.download(f"hf:acme/only-{suffix}", NOT_ALLOWED)
    root.download(f"hf:acme/only-{suffix}#model.{suffix}", NOT_ALLOWED)
    assert shops.sent_bytes == before


@pytest.mark.parametrize("disguise", BOMBS, ids=lambda disguise: disguise.name)
def test_no_bomb_goes_off(disguise: bombs.Disguise, root: Root, shops: Shops, tmp_path: Path):
    good = TinySdxl.below(tmp_path / "good")
    for name, content in CONFIG.items():
        (good.config / name).parent.mkdir(parents=True, exist_ok=True)
        (good.config / name).write_bytes(content)
    good.checkpoint.write_bytes(checkpoint())
    at = bombs.place(tmp_path / "bomb", good, tmp_path / "canary")
    shops.repository(f"acme/{disguise.name}", disguise.lay(at).read_bytes())
    root.download(f"hf:acme/{disguise.name}", INTEGRITY)
    assert not at.canary.exists()


def test_the_right_size_and_the_wrong_bytes(root: Root, shops: Shops):
    shops.repository("acme/wrong-hash", checkpoint("wrong-hash"))
    shops.hf.fault(Place.STORE, "acme/wrong-hash", "wrong-hash.safetensors", Fault(flipped_at=900))
    root.download("hf:acme/wrong-hash", INTEGRITY)
