"""Two running systems that the tier shares: one that draws sketches, one that renders a tiny SDXL checkpoint."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import tiny_sdxl
from tests.e2e.system import System


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """`dreamforge up --backend sketch`. Tests may kill its parts, not the whole."""
    running = System(tmp_path_factory.mktemp("e2e") / "data", "--backend", "sketch")
    try:
        yield running.start()
    finally:
        running.end()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny SDXL checkpoint in a folder of its own, which a test may break and mend."""
    if missing := tiny_sdxl.missing_library():
        pytest.skip(missing)
    made = tiny_sdxl.cached()
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(made.config, folder / "config")
    return Path(shutil.copy2(made.checkpoint, folder / "tiny-sdxl.safetensors"))


@pytest.fixture(scope="session")
def sdxl(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Iterator[System]:
    """`dreamforge up --backend sdxl --model FILE` with the tiny checkpoint."""
    data = tmp_path_factory.mktemp("e2e-sdxl") / "data"
    settings = {
        # On a busy machine torch's threads wait for each other far longer than this tiny model computes.
        "OMP_NUM_THREADS": "1",
        # One look at the checkpoint, at the start: a test that takes it away for a moment wants the runner's word.
        "DF_MODELS_SYNC_SECONDS": "86400",
    }
    running = System(data, "--backend", "sdxl", "--model", checkpoint, environment=settings)
    try:
        yield running.start()
    finally:
        running.end()


@pytest.fixture(autouse=True)
def _ready(request: pytest.FixtureRequest) -> None:
    """A test that killed a part may leave a system that is still coming back."""
    for name in ("system", "sdxl"):
        if name in request.fixturenames:
            request.getfixturevalue(name).client.until_ready()
