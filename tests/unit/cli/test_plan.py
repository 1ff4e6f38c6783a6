"""The environment of the children."""

import os
from pathlib import Path

import pytest

from dreamforge.models import BackendMode
from dreamforge.settings import load
from dreamforge_cli.settings import UpSettings
from dreamforge_cli.up import plan
from dreamforge_cli.up.backend import Choice
from dreamforge_cli.up.folder import DataFolder


@pytest.fixture(autouse=True)
def _clean(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("DF_")]:
        monkeypatch.delenv(name)
    (tmp_path / "data").mkdir()


def shared(tmp_path: Path, **overrides: str) -> dict[str, str]:
    choice = Choice(BackendMode.SDXL, tmp_path / "m.safetensors", "")
    return plan.environment(
        load(UpSettings, **overrides), DataFolder(tmp_path / "data"), choice, database_url="pg", redis_url="rd"
    )


def test_objects_lie_in_the_data_folder_unless_told_otherwise(tmp_path):
    assert shared(tmp_path)["DF_STORE_ROOT"] == str(tmp_path / "data" / "objects")
    assert shared(tmp_path, store_root="mine")["DF_STORE_ROOT"] == str(tmp_path / "mine")


def test_another_store_is_left_alone(tmp_path):
    assert not {"DF_STORE", "DF_STORE_ROOT"} & shared(tmp_path, store="s3").keys()


def test_the_signing_key_is_drawn_once_and_private(tmp_path):
    first, second = shared(tmp_path), shared(tmp_path)
    assert first["DF_SIGNING_KEY"] == second["DF_SIGNING_KEY"]
    assert len(first["DF_SIGNING_KEY"]) >= 32
    assert (tmp_path / "data" / "secrets" / "signing_key").stat().st_mode & 0o777 == 0o600


def test_a_signing_key_of_the_user_is_kept(tmp_path):
    assert "DF_SIGNING_KEY" not in shared(tmp_path, signing_key="k" * 16)


def test_the_choice_of_the_backend_reaches_the_children_over_any_other_setting(tmp_path):
    made = shared(tmp_path)
    assert made["DF_RUNNER_BACKEND"] == "sdxl"
    assert made["DF_FAKE_RUNNER"] == "0"
    assert made["DF_GENERATE_MODEL_PATH"] == str(tmp_path / "m.safetensors")


def test_each_slot_has_a_spool_of_its_own(tmp_path):
    specs = plan.early({}, DataFolder(tmp_path / "data"), plan.Address("127.0.0.1", 1), 3)
    assert [spec.name for spec in specs] == ["api", "runner-0", "runner-1", "runner-2"]
    spools = {spec.environment["DF_SPOOL_DIR"] for spec in specs[1:]}
    assert len(spools) == 3


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8001"),
        ("0.0.0.0", "http://127.0.0.1:8001"),
        ("::1", "http://[::1]:8001"),
        ("::", "http://[::1]:8001"),
        ("box.lan", "http://box.lan:8001"),
    ],
)
def test_the_url_is_one_that_works_here(host, url):
    assert plan.Address(host, 8001).url == url


def test_every_process_has_its_place_in_the_order_of_stopping(tmp_path):
    folder = DataFolder(tmp_path / "data")
    specs = [plan.migration({}), plan.worker({}), *plan.early({}, folder, plan.Address("127.0.0.1", 1), 2)]
    names = {spec.name.partition("-")[0] for spec in specs} | {"postgres", "redis"}
    assert names == {name for group, _ in plan.STOP_ORDER for name in group}
    assert all(by < 10 for _, by in plan.STOP_ORDER)
