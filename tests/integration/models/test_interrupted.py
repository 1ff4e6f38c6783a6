"""Downloads that are cut short, and two at once: real processes, real signals, real HTTP."""

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dreamforge import models_root
from tests.model_kit import Shops, checkpoint, open_shops
from tests.servers.stack import clean_environment, command, until
from tests.standins.faults import Fault, Place

SIZE = 3 * 2**20
DATA = checkpoint("slow", SIZE)
TOKEN = "hf_canaryCanaryCanary"


@pytest.fixture
def shops() -> Iterator[Shops]:
    """One checkpoint behind a login that takes some seconds to come."""
    with open_shops() as opened:
        opened.hf.tokens = opened.hf.members = {TOKEN}
        opened.repository("acme/slow", DATA, gated="auto")
        slow(opened)
        yield opened


def slow(shops: Shops) -> None:
    shops.hf.fault(Place.STORE, "acme/slow", "slow.safetensors", Fault(speed=2**20))


class Run:
    """`dreamforge model download` as a process."""

    def __init__(self, root: Path, shops: Shops) -> None:
        self._folder = root.parent
        self.process = subprocess.Popen(
            command("model", "download", "hf:acme/slow", "--root", root, "--json"),
            env=clean_environment(**shops.environment, HF_TOKEN=TOKEN),
            cwd=root.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, status: int = 0) -> list[dict[str, Any]]:
        """Wait; the lines it printed."""
        stdout, stderr = self.process.communicate(timeout=90)
        assert self.process.returncode == status, stdout + stderr
        assert TOKEN not in stdout + stderr
        return [json.loads(line) for line in stdout.splitlines()]


def model(word: str, root: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Another `dreamforge model` command on the same root."""
    line = command("model", word, *more, "--root", root)
    return subprocess.run(line, env=clean_environment(), cwd=root.parent, capture_output=True, text=True, timeout=60)


def half_there(root: Path) -> Path:
    """The file under way, once a good part of it is there."""

    def found() -> Path | None:
        parts = list(root.glob(".staging/*/*/*.part"))
        return next((part for part in parts if part.stat().st_blocks * 512 > SIZE // 3), None)

    part: Path = until(found, 60, "a download that is half there")
    return part


def whole(root: Path) -> models_root.InstalledModel:
    """The one model of the root, and nothing else left of getting it."""
    (found,) = models_root.scan(root)
    assert found.model is not None
    assert found.problem is None
    assert (found.folder / found.model.checkpoint.path).read_bytes() == DATA
    left = [path for path in (root / ".staging").rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert left == []
    return found.model


def silent(shops: Shops) -> None:
    """No more than the first half comes: the download is under way for as long as a test needs."""
    shops.hf.fault(Place.STORE, "acme/slow", "slow.safetensors", Fault(stall_at=0.5))


def test_killed_and_started_again_it_goes_on(shops, tmp_path):
    root = tmp_path / "models"
    silent(shops)
    first = Run(root, shops)
    part = half_there(root)
    # What is safe is written down now and then; what comes after that is fetched again.
    time.sleep(0.3)
    first.process.kill()
    first.process.wait()
    kept = {path.name: path.read_bytes() for path in part.parent.rglob("*.json")}
    assert not any(TOKEN.encode() in content for content in kept.values())
    assert list(models_root.scan(root)) == []
    first.process.communicate()
    slow(shops)
    told = Run(root, shops).end()[-1]
    assert told["event"] == "installed"
    assert told["id"] == whole(root).id
    assert told["fetched"] < len(DATA)


def test_ctrl_c_says_how_to_go_on(shops, tmp_path):
    root = tmp_path / "models"
    silent(shops)
    run = Run(root, shops)
    half_there(root)
    run.process.send_signal(signal.SIGINT)
    told = run.end(130)[-1]
    assert told["event"] == "error"
    assert "same command goes on" in told["message"]
    assert list(models_root.scan(root)) == []
    assert "unfinished" in model("list", root).stderr
    slow(shops)
    assert Run(root, shops).end()[-1]["event"] == "installed"
    whole(root)
    assert "unfinished" not in model("list", root).stderr


def test_what_an_interrupted_download_left_can_be_removed(shops, tmp_path):
    root = tmp_path / "models"
    silent(shops)
    run = Run(root, shops)
    half_there(root)
    assert model("remove", root, "sdxl-slow").returncode == 5  # it is in hand
    run.process.send_signal(signal.SIGINT)
    run.end(130)
    assert model("remove", root, "sdxl-slow").returncode == 0
    assert [path for path in root.rglob("*.part*")] == []


def test_two_at_once_are_one(shops, tmp_path):
    root = tmp_path / "models"
    first, second = Run(root, shops), Run(root, shops)
    lines = [first.end(), second.end()]
    assert sorted(told[-1]["event"] for told in lines) == ["already_installed", "installed"]
    assert sum(told[-1]["fetched"] for told in lines) == sum(file.size_bytes for file in whole(root).files)
    waited = [line for told in lines for line in told if re.search("waiting", line.get("message", ""))]
    assert len(waited) <= 1
    assert shops.hf.store.site.sent_bytes == len(DATA)


def test_progress_is_told_every_second(shops, tmp_path):
    lines = [line for line in Run(tmp_path / "models", shops).end() if line["event"] == "progress"]
    assert len(lines) >= 2
    done = [line["bytes_done"] for line in lines]
    assert done == sorted(done)
    assert any(line["bytes_per_second"] > 0 for line in lines)
    assert lines[-1]["bytes_done"] == lines[-1]["bytes_total"]
