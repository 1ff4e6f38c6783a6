"""The environment of the children."""

import os
from pathlib import Path

import pynvml
import pytest

from dreamforge.models import BackendMode
from dreamforge.settings import load
from dreamforge_cli.settings import UpSettings
from dreamforge_cli.up import gpus, plan
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
    ("visible", "slots", "seen"),
    [
        ("0,1", 2, ["0", "1"]),
        ("3, GPU-a", 3, ["3", "GPU-a", "3"]),
        ("-1", 2, ["-1", "-1"]),
        ("0,1", 1, [None]),
        (None, 1, [None]),
    ],
)
def test_runners_share_the_gpus_out(tmp_path, visible, slots, seen):
    """One alone is left what it has: it takes the first."""
    shares = gpus.shared_out(visible, slots)
    specs = plan.early({}, DataFolder(tmp_path / "data"), plan.Address("127.0.0.1", 1), slots, shares)
    assert [spec.environment.get("CUDA_VISIBLE_DEVICES") for spec in specs] == [None, *seen]


def test_gpus_that_nobody_named_are_counted(monkeypatch):
    monkeypatch.setattr("pynvml.nvmlInit", lambda: None)
    monkeypatch.setattr("pynvml.nvmlShutdown", lambda: None)
    monkeypatch.setattr("pynvml.nvmlDeviceGetCount", lambda: 2)
    assert gpus.shared_out(None, 4) == ["0", "1"]


def test_without_a_driver_there_is_no_gpu_to_share(monkeypatch):
    def no_driver() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr("pynvml.nvmlInit", no_driver)
    assert gpus.shared_out(None, 2) == []


@pytest.mark.parametrize("where", ["environment", ".env"])
def test_the_gpus_are_named_as_cuda_has_it(where, monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if where == ".env":
        (tmp_path / ".env").write_text("CUDA_VISIBLE_DEVICES=0,1\n")
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert load(UpSettings).visible_devices == "0,1"


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
