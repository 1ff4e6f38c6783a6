"""``dreamforge model adopt`` and every file that no runner may load: refused, and nothing is left behind."""

from pathlib import Path

import pytest

from dreamforge.checkpoints import configuration
from dreamforge_cli.models.errors import BadReference, NotAllowed
from tests import pipeline_config
from tests.adoption import adopted
from tests.tiny_sdxl import TinySdxl, bombs, broken

GOOD = broken.encode(broken.MINIMAL)


@pytest.fixture
def good(tmp_path: Path) -> TinySdxl:
    """What passes every check that needs no library."""
    files = TinySdxl.below(tmp_path / "good")
    pipeline_config.write(files.config)
    (files.config / "tokenizer/tokenizer_config.json").write_text("{}")
    files.checkpoint.write_bytes(GOOD)
    return files


def left_in(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_the_good_one_is_adopted(good: TinySdxl, tmp_path: Path):
    model = adopted(tmp_path / "root", good.checkpoint)
    configuration.check(tmp_path / "root" / model.folder / "config")
    assert (tmp_path / "root" / model.folder / model.checkpoint.path).read_bytes() == GOOD


@pytest.mark.parametrize("case", [*broken.CORPUS, *broken.ON_DISK], ids=lambda case: case.name)
def test_no_broken_file_is_adopted(case: broken.Broken | broken.BrokenOnDisk, good: TinySdxl, tmp_path: Path):
    path = case.write(good.checkpoint.parent, GOOD)
    with pytest.raises((NotAllowed, BadReference)):
        adopted(tmp_path / "root", path)
    assert left_in(tmp_path / "root") == []


@pytest.mark.parametrize("protocol", range(6))
def test_the_bombs_are_live(protocol: int, tmp_path: Path):
    import pickle  # noqa: PLC0415 - the one place that unpickles anything

    bomb = bombs.Place(tmp_path, tmp_path / "canary").bomb(protocol)
    pickle.loads(bomb)["state_dict"].close()  # noqa: S301 - to see it go off
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize("disguise", bombs.DISGUISES, ids=lambda disguise: disguise.name)
def test_no_bomb_goes_off_or_is_taken_along(disguise: bombs.Disguise, good: TinySdxl, tmp_path: Path):
    at = bombs.place(tmp_path / "bomb", good, tmp_path / "canary")
    path = disguise.lay(at)
    if disguise.refused:
        with pytest.raises(NotAllowed):
            adopted(tmp_path / "root", path)
        assert left_in(tmp_path / "root") == []
    else:
        adopted(tmp_path / "root", path)
        kept = {Path(name).suffix for name in left_in(tmp_path / "root")}
        assert kept <= {".safetensors", ".json", ".txt", ".sha256", ".lock"}
    assert not at.canary.exists()
