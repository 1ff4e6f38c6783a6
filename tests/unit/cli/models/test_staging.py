"""The room where a model is put together, and the one moment in which it appears."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from dreamforge import models_root
from dreamforge.models import FileRole, ModelFile, ModelKind, Provenance
from dreamforge.models_root import InstalledModel
from dreamforge_cli.models.errors import DiskError, NotAllowed
from dreamforge_cli.models.staging import Staging, unfinished

FILES = {"x.safetensors": b"weights", "config/vae/config.json": b"{}"}
MODEL = InstalledModel(
    slug="x",
    version="1",
    kind=ModelKind.SDXL_CHECKPOINT,
    name="X",
    source_uri="file:x",
    provenance=Provenance(source="file", ref="file:x"),
    files=tuple(
        ModelFile(path=path, role=role, size_bytes=len(FILES[path]), sha256="0" * 64)
        for path, role in (("x.safetensors", FileRole.CHECKPOINT), ("config/vae/config.json", FileRole.CONFIG))
    ),
    verified_at=datetime(2026, 1, 1, tzinfo=UTC),
)


def never() -> None:
    raise AssertionError("nobody else is here")


def filled(root: Path) -> Staging:
    staging = Staging(root, MODEL.folder)
    with staging.held(never):
        for path, content in FILES.items():
            staging.file(path).write_bytes(content)
    return staging


def test_nothing_appears_before_all_of_it_does(tmp_path: Path):
    staging = filled(tmp_path)
    assert list(models_root.scan(tmp_path)) == []
    assert list(unfinished(tmp_path)) == [MODEL.folder]
    staging.publish(MODEL)
    (found,) = models_root.scan(tmp_path)
    assert (found.model, found.problem) == (MODEL, None)
    assert unfinished(tmp_path) == {}


def test_what_an_earlier_try_left_does_not_come_along(tmp_path: Path):
    staging = filled(tmp_path)
    staging.file("x.safetensors.part").write_bytes(b"old")
    staging.file("config/unet/other.json").write_bytes(b"old")
    (staging.room / "config" / "link").symlink_to(tmp_path)
    folder = staging.publish(MODEL)
    left = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    assert left == {"model.json", *FILES}


def test_a_folder_that_a_crash_left_without_a_descriptor_is_replaced(tmp_path: Path):
    filled(tmp_path).room.rename(tmp_path / "moved")
    (tmp_path / MODEL.kind.value).mkdir()
    (tmp_path / "moved").rename(tmp_path / MODEL.folder)
    filled(tmp_path).publish(MODEL)
    (found,) = models_root.scan(tmp_path)
    assert found.problem is None


def test_a_link_in_the_place_of_a_model_is_replaced_and_its_target_stays(tmp_path: Path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_bytes(b"x")
    root = tmp_path / "root"
    staging = filled(root)
    (root / MODEL.kind.value).mkdir()
    staging.place.symlink_to(elsewhere)
    staging.publish(MODEL)
    assert not staging.place.is_symlink()
    assert [path.name for path in elsewhere.iterdir()] == ["precious"]


def test_removed_and_discarded_is_gone(tmp_path: Path):
    filled(tmp_path).publish(MODEL)
    staging = filled(tmp_path)
    with staging.held(never):
        staging.discard()
        staging.remove()
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


def test_a_second_holder_is_told(tmp_path: Path):
    told = []

    def busy() -> None:
        told.append("busy")
        raise NotAllowed("busy")

    one, two = Staging(tmp_path, MODEL.folder), Staging(tmp_path, MODEL.folder)
    with one.held(never), pytest.raises(NotAllowed), two.held(busy):
        pass
    assert told == ["busy"]
    with two.held(never):
        pass


def test_a_root_that_can_not_be(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DiskError, match="file"), Staging(tmp_path / "file", MODEL.folder).held(never):
        pass
