"""The file of runtimes and models, and what a RenderJob gets of it."""

from pathlib import Path

import pytest

from dreamforge.errors import ConfigurationError
from dreamforge.models import SKETCH_PROVIDER
from dreamforge_operator import runtimes

FILE = """
defaultRuntime: small
runtimes:
  small: {}
  big: {image: own:2, resources: {limits: {memory: 40Gi}}}
models:
  one: {kind: sdxl-checkpoint, path: /models/one.safetensors, runtime: big}
"""


@pytest.fixture
def offered(tmp_path: Path) -> runtimes.Runtimes:
    (tmp_path / "r.yaml").write_text(FILE)
    return runtimes.load(tmp_path / "r.yaml")


def test_the_model_picks_its_runtime_unless_another_is_named(offered: runtimes.Runtimes):
    assert offered.choose_runtime(None, "one") is offered.runtimes["big"]
    assert offered.choose_runtime("small", "one") is offered.runtimes["small"]
    assert offered.choose_runtime(None, "sketch") is offered.runtimes["small"]
    assert offered.choose_runtime("none", "one") is None


@pytest.mark.parametrize(
    ("asked", "provider", "got"),
    [
        (None, "local-sdxl-epicrealism", "one"),
        (None, SKETCH_PROVIDER, "sketch"),
        ("sketch", "local-sdxl-epicrealism", "sketch"),
    ],
)
def test_the_model(offered: runtimes.Runtimes, asked: str | None, provider: str, got: str):
    model = offered.choose_model(asked, provider)
    assert model is not None
    assert model.id == got


def test_without_a_file_there_is_sketch():
    model = runtimes.load(None).choose_model(None, "local-sdxl-epicrealism")
    assert model is not None
    assert model.id == "sketch"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "neither YAML nor JSON"),
        ("runtimes: 5", "runtimes: "),
        ("runtimes: {a: {}}", "runtime 'default' is named but not defined"),
        ("defaultModel: x", "model 'x' is the default but not defined"),
        ("runtimes: {default: {privileged: true}}", "runtimes.default.privileged"),
    ],
)
def test_a_wrong_file_stops_the_process_with_a_line(tmp_path: Path, text: str, message: str):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match="DF_RUNTIMES_FILE") as error:
        runtimes.load(tmp_path / "r.yaml")
    assert message in str(error.value)
