"""A running system follows its models root: what appears there can be used, what goes is refused with the reason."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.models_on_disk import install
from tests.servers.stack import Up, until


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("models-on-disk")
    settings = {"DF_MODELS_SYNC_SECONDS": "0.2", "DF_MODELS_ROOT": str(folder / "models")}
    running = Up(folder / "data", "--backend", "auto", environment=settings)
    try:
        yield running.start()
    finally:
        running.end()


def model(up: Up, model_id: str) -> dict[str, Any]:
    """Its resource; empty when there is none."""
    answer = httpx.get(f"{up.url}/v1/models/{model_id}", timeout=20)
    return answer.json() if answer.status_code == 200 else {}


def wrong(up: Up) -> float:
    """What the metric says: how many models are not installed."""
    lines = httpx.get(f"{up.url}/metrics", timeout=20).text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("dreamforge_models_not_installed "))


def test_models_come_and_go_with_their_files(up: Up) -> None:
    root = up.data.parent / "models"
    body = {"prompt": "x"}
    by_default = httpx.post(f"{up.url}/v1/jobs", json=body, timeout=20).json()
    assert (by_default["model_id"], len(by_default["warnings"])) == ("sketch", 1)

    made = install(root)
    until(lambda: model(up, made.id).get("installed"), what="a model that was copied into the root")
    until(lambda: wrong(up) == 0, what="the metric")
    (root / made.folder / "tiny.safetensors").write_bytes(b"x" * made.checkpoint.size_bytes)
    until(lambda: "other bytes" in (model(up, made.id).get("problem") or ""), what="other bytes of the same size")
    assert model(up, made.id)["installed"] is False
    until(lambda: wrong(up) == 1, what="the metric")
    until(
        lambda: "other bytes" in _post(up, made.slug).json().get("detail", ""), what="the API to refuse it for that"
    )
    assert _post(up, made.slug).status_code == 422

    shutil.rmtree(root)
    until(lambda: "models root" in (model(up, made.id).get("problem") or ""), what="a root that is gone")
    install(root)
    until(lambda: model(up, made.id).get("installed"), what="the model to be back")
    until(lambda: wrong(up) == 0, what="the metric")


def _post(up: Up, model_id: str | None) -> httpx.Response:
    return httpx.post(f"{up.url}/v1/jobs", json={"prompt": "x", "model_id": model_id}, timeout=20)


def test_a_checkpoint_placed_by_hand_is_no_default_once_its_file_is_gone(tmp_path: Path) -> None:
    checkpoint = tmp_path / "Placed.safetensors"
    checkpoint.write_bytes(b"never loaded here")
    up = Up(tmp_path / "data", "--model", checkpoint, environment={"DF_MODELS_SYNC_SECONDS": "0.2"})
    try:
        up.start()
        assert model(up, "sdxl-placed")["installed"] is True
        checkpoint.unlink()
        until(lambda: model(up, "sdxl-placed")["problem"], what="the worker to see it")
        until(lambda: _post(up, None).status_code == 422, what="the API to hear of it")
        for named in ("sdxl-placed", None):
            assert "there is no file" in _post(up, named).json()["detail"]
    finally:
        up.end()
