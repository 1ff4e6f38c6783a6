"""The registry follows the disk: what is gone or changed is not installed, that is said once, and it comes back."""

import os
import shutil
import tempfile
from collections.abc import Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import Engine
from structlog.testing import capture_logs

from dreamforge.checkpoints import digest
from dreamforge.db import registry
from dreamforge.db.engine import open_engine
from dreamforge.models_root import DESCRIPTOR, InstalledModel
from dreamforge_api.worker.registry_sync import RegistrySync
from dreamforge_runner.backends.sdxl import conversion
from tests.api_server import poll
from tests.converted_on_disk import install_converted
from tests.jobs import rows
from tests.models_on_disk import install
from tests.servers import postgres


@pytest.fixture
def engine(postgres_url: str, database_template: str) -> Iterator[Engine]:
    with postgres.fresh_database(postgres_url, database_template) as url:
        made = open_engine(url)
        yield made
        made.dispose()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "models"
    made.mkdir()
    return made


def state(engine: Engine) -> dict[str, str | None]:
    """Why each registered model is not installed."""
    found = rows(engine, "SELECT id, installed, problem FROM models")
    assert all(row["installed"] == (row["problem"] is None) for row in found)
    return {row["id"]: row["problem"] for row in found}


def kinds(engine: Engine, model_id: str) -> list[str]:
    with engine.connect() as connection:
        return [row.kind for row in connection.execute(registry.history(model_id))][::-1]


def swept(sync: RegistrySync) -> list[MutableMapping[str, Any]]:
    """What a pass logs; the pass after it has nothing to add."""
    with capture_logs() as said:
        sync.sweep()
    with capture_logs() as again:
        sync.sweep()
    assert again == []
    return said


def not_installed() -> float | None:
    return REGISTRY.get_sample_value("dreamforge_models_not_installed")


def folder_of(root: Path, model: InstalledModel) -> Path:
    return root / model.folder


def test_what_lies_there_is_registered_whole(engine: Engine, root: Path) -> None:
    model = install(root, presets={"fast@1": {"gpu_memory_gib": 6, "defaults": {"steps": 4}}})
    assert [line["change"] for line in swept(RegistrySync(engine, root, None))] == ["registered"]
    (row,) = rows(engine, "SELECT * FROM models")
    assert (row["id"], row["slug"], row["folder"]) == (model.id, model.slug, model.folder)
    assert row["local_path"] == str(root / model.folder / "tiny.safetensors")
    assert row["checkpoint_hash"] == model.checkpoint.sha256
    assert row["provenance"]["commit"] == "c" * 40
    assert row["presets"]["fast@1"]["defaults"]["steps"] == 4
    choices = row["parameters_schema"]["properties"]["preset"]["oneOf"]
    assert {"fast", "fast@1", "draft"} <= {choice["const"] for choice in choices}
    assert row["verified_at"] == model.verified_at
    assert not_installed() == 0


def _shorter(folder: Path) -> None:
    (folder / "tiny.safetensors").write_bytes(b"short")


def _other_bytes(folder: Path) -> None:
    file = folder / "config/model_index.json"
    file.write_bytes(b"[]")


def _gone(folder: Path) -> None:
    (folder / "tiny.safetensors").unlink()


def _folder_gone(folder: Path) -> None:
    shutil.rmtree(folder)


def _no_json(folder: Path) -> None:
    (folder / DESCRIPTOR).write_text("{")


def _a_pipe(folder: Path) -> None:
    (folder / DESCRIPTOR).unlink()
    os.mkfifo(folder / DESCRIPTOR)


def _loop(folder: Path) -> None:
    (folder / DESCRIPTOR).unlink()
    (folder / DESCRIPTOR).symlink_to(DESCRIPTOR)


def _another_models(folder: Path) -> None:
    text = (folder / DESCRIPTOR).read_text().replace('"version": "v1"', '"version": "v2"')
    (folder / DESCRIPTOR).write_text(text)


def _file_outside(folder: Path) -> None:
    outside = folder.parents[2] / "outside.safetensors"
    shutil.move(folder / "tiny.safetensors", outside)
    (folder / "tiny.safetensors").symlink_to(outside)


def _folder_outside(folder: Path) -> None:
    outside = folder.parents[2] / folder.name
    shutil.move(folder, outside)
    folder.symlink_to(outside)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_shorter, "tiny.safetensors has 5 bytes"),
        (_other_bytes, "config/model_index.json has other bytes"),
        (_gone, "tiny.safetensors can't be reached: No such file"),
        (_folder_gone, "model.json can't be reached: No such file"),
        (_no_json, "is no descriptor"),
        (_a_pipe, "is no descriptor"),
        (_loop, "can't be read: Too many levels"),
        (_another_models, "which is another folder"),
        (_file_outside, "not a file inside the model's folder"),
        (_folder_outside, "leads out of the models root"),
    ],
)
def test_damage_takes_a_model_out_of_service_and_mending_brings_it_back(
    engine: Engine, root: Path, damage: Any, said: str
) -> None:
    damaged, other = install(root), install(root, "sdxl-other")
    sync = RegistrySync(engine, root, None)
    sync.sweep()
    damage(folder_of(root, damaged))

    (line,) = swept(sync)

    assert (line["log_level"], line["model_id"]) == ("warning", damaged.id)
    assert said in (problem := str(state(engine)[damaged.id]))
    assert line["problem"] == problem
    assert state(engine)[other.id] is None
    assert not_installed() == 1

    folder = folder_of(root, damaged)
    folder.unlink() if folder.is_symlink() else shutil.rmtree(folder, ignore_errors=True)
    install(root)
    assert [line["change"] for line in swept(sync)] == ["installed"]
    assert kinds(engine, damaged.id) == ["registered", "not_installed", "installed"]
    assert not_installed() == 0


def test_a_root_that_goes_away_takes_its_models_along_until_it_is_back(engine: Engine, root: Path) -> None:
    first, second = install(root), install(root, version="v2")
    sync = RegistrySync(engine, root, None)
    sync.sweep()
    root.rename(root.with_name("elsewhere"))

    said = swept(sync)

    assert {line.get("model_id") for line in said} == {first.id, second.id, None}
    for problem in state(engine).values():
        assert problem is not None
        assert f"the models root {root} can't be read: No such file or directory" in problem
    root.with_name("elsewhere").rename(root)
    assert {line["change"] for line in swept(sync)} == {"installed"}
    assert set(state(engine).values()) == {None}


@contextmanager
def nobody() -> Iterator[None]:
    """As a user whom permissions bind."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("shut", [".", "sdxl-checkpoint", "sdxl-checkpoint/sdxl-tiny@v1", "file"])
def test_what_may_not_be_read_is_not_installed_and_says_that(engine: Engine, shut: str) -> None:
    with tempfile.TemporaryDirectory() as made:  # pytest's own folders are closed to others already
        root = Path(made)
        model = install(root)
        for path in (root, *root.rglob("*")):
            path.chmod(0o755)
        sync = RegistrySync(engine, root, None)
        sync.sweep()
        closed = folder_of(root, model) / "tiny.safetensors" if shut == "file" else root / shut
        closed.touch()
        closed.chmod(0)
        with nobody():
            swept(sync)
        closed.chmod(0o755)
        assert "Permission denied" in str(state(engine)[model.id])
        swept(sync)
        assert state(engine)[model.id] is None


def test_a_root_that_never_was_there_is_said_once_and_no_crash(engine: Engine, tmp_path: Path) -> None:
    (line,) = swept(RegistrySync(engine, tmp_path / "nothing", None))
    assert line["place"] == str(tmp_path / "nothing")
    assert not_installed() == 1


@pytest.mark.parametrize("content", ["{}", "not json", '{"slug": "x"}', "\x00"])
def test_a_folder_that_was_never_registered_and_cannot_be_is_said_once(
    engine: Engine, root: Path, content: str
) -> None:
    good = install(root)
    folder = root / "sdxl-checkpoint" / "sdxl-bad@1"
    folder.mkdir()
    (folder / DESCRIPTOR).write_text(content)
    said = swept(RegistrySync(engine, root, None))
    assert [line["place"] for line in said if "place" in line] == ["sdxl-checkpoint/sdxl-bad@1"]
    assert state(engine) == {good.id: None}
    assert not_installed() == 1


def test_a_descriptor_that_the_database_refuses_stands_in_no_ones_way(engine: Engine, root: Path) -> None:
    install(root, "sdxl-a-bad-one", name="NUL \0 byte")
    good = install(root)
    said = swept(RegistrySync(engine, root, None))
    assert [line["place"] for line in said if "place" in line] == ["sdxl-checkpoint/sdxl-a-bad-one@v1"]
    assert state(engine) == {good.id: None}


def test_workers_side_by_side_say_it_once(engine: Engine, root: Path) -> None:
    models = [install(root, f"sdxl-{number}") for number in range(5)]
    syncs = [RegistrySync(engine, root, None) for _ in range(4)]
    with ThreadPoolExecutor(len(syncs)) as pool:
        list(pool.map(RegistrySync.sweep, syncs))
        for model in models:
            _gone(folder_of(root, model))
        list(pool.map(RegistrySync.sweep, syncs))
    for model in models:
        assert kinds(engine, model.id) == ["registered", "not_installed"]


def test_a_model_that_is_removed_while_it_is_looked_at_stays_removed(engine: Engine, root: Path) -> None:
    model = install(root)
    sync = RegistrySync(engine, root, None)
    sync.sweep()
    waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as connection:  # as `model remove` does it
            assert connection.execute(registry.REMOVE, {"id": model.id, "detail": "by hand"}).rowcount == 1
            running = pool.submit(sync.sweep)
            poll(lambda: rows(engine, waits), "the pass to come to the model's row")
            shutil.rmtree(folder_of(root, model))
        running.result(10)
    assert rows(engine, "SELECT id FROM models") == []
    assert kinds(engine, model.id)[-1] == "removed"
    assert not_installed() == 0


def test_what_is_switched_off_stays_off_and_raises_no_alarm(engine: Engine, root: Path) -> None:
    model = install(root)
    sync = RegistrySync(engine, root, None)
    sync.sweep()
    with engine.begin() as connection:
        connection.execute(registry.SET_ENABLED, {"id": model.id, "enabled": False})
    _gone(folder_of(root, model))
    swept(sync)
    assert rows(engine, "SELECT enabled, installed FROM models") == [{"enabled": False, "installed": False}]
    assert not_installed() == 0


def test_a_hash_is_computed_once_whether_the_root_can_be_written_or_not(
    engine: Engine, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(root)
    computed: list[Path] = []
    compute = digest.read

    def counted(path: Path, *memories: Path | None, **more: Any) -> str:
        computed.append(path)
        return compute(path, *memories, **more)

    monkeypatch.setattr(digest, "read", counted)
    (root / ".hashes").write_text("no folder: nothing can be remembered on disk")
    sync = RegistrySync(engine, root, None)
    for _ in range(3):
        sync.sweep()
    assert len(computed) == 2, "two files"
    (root / ".hashes").unlink()
    for _ in range(2):
        RegistrySync(engine, root, None).sweep()
    assert len(computed) == 4, "the second process found it on disk"


def test_a_checkpoint_placed_by_hand_goes_and_comes_with_its_file(engine: Engine, tmp_path: Path) -> None:
    old, new = tmp_path / "Old.safetensors", tmp_path / "New.safetensors"
    for file in (old, new):
        file.write_bytes(b"weights")
    RegistrySync(engine, None, old).sweep()
    sync = RegistrySync(engine, None, new)
    sync.sweep()
    assert state(engine) == {"sdxl-old": None, "sdxl-new": None}
    old.unlink()
    new.rename(tmp_path / "kept")
    assert {line["model_id"] for line in swept(sync)} == {"sdxl-old", "sdxl-new"}
    assert state(engine) == {"sdxl-old": f"there is no file {old}", "sdxl-new": f"there is no file {new}"}
    (tmp_path / "kept").rename(new)
    old.write_bytes(b"other weights")
    assert {line["change"] for line in swept(sync)} == {"installed"}
    sizes = rows(engine, "SELECT id, size_bytes FROM models ORDER BY id")
    assert [row["size_bytes"] for row in sizes] == [7, 13]


def test_what_verification_found_out_is_not_taken_back(engine: Engine, root: Path) -> None:
    """A disk that loses bits changes neither size nor times: who reads every byte knows, and tells the memory."""
    model = install(root)
    sync = RegistrySync(engine, root, None)
    swept(sync)
    checkpoint = folder_of(root, model) / model.checkpoint.path
    digest.remember(checkpoint, "f" * 64, digest.memory_of(root))
    swept(sync)
    assert "other bytes" in str(state(engine)[model.id])
    digest.read(checkpoint, digest.memory_of(root))
    swept(sync)
    assert state(engine) == {model.id: None}


def test_converted_files_count_where_there_is_nothing_else(engine: Engine, root: Path) -> None:
    model = install_converted(root)
    sync = RegistrySync(engine, root, None)
    swept(sync)
    weights = folder_of(root, model) / "converted" / "unet.safetensors"
    whole = weights.read_bytes()
    weights.unlink()
    assert (swept(sync), state(engine)) == ([], {model.id: None})  # runners go on with the checkpoint
    weights.write_bytes(whole)
    assert model.conversion is not None
    conversion.drop_original(root, model, model.conversion)
    assert (swept(sync), state(engine)) == ([], {model.id: None})
    (row,) = rows(engine, "SELECT checkpoint_hash, installed FROM models")
    assert row["checkpoint_hash"] == model.checkpoint.sha256
    weights.unlink()
    swept(sync)
    assert "unet" in str(state(engine)[model.id])
    weights.write_bytes(whole[:-1] + b"\x01")
    swept(sync)
    assert "other bytes" in str(state(engine)[model.id])
    weights.write_bytes(whole)
    swept(sync)
    assert state(engine) == {model.id: None}
