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


def test_the_default_has_an_id_that_ingest_is_told(offered: runtimes.Runtimes):
    assert offered.default_id("local-sdxl-epicrealism") == "one"
    assert offered.default_id(SKETCH_PROVIDER) == "sketch"


WITH_VOLUME = """
runtimes:
  default: {}
  small-gpu: {models: {persistentVolumeClaim: {claimName: models}}}
  big-gpu: {models: {persistentVolumeClaim: {claimName: models}}}
models:
  sdxl-big: {kind: sdxl-checkpoint, runtime: big-gpu}
"""


def test_an_installed_model_needs_no_entry_where_a_runtime_has_a_models_volume(
    tmp_path: Path, offered: runtimes.Runtimes
):
    (tmp_path / "v.yaml").write_text(WITH_VOLUME)
    volume = runtimes.load(tmp_path / "v.yaml")
    model = volume.choose_model("sdxl-x@1.0", "local-sdxl-epicrealism")
    assert model is not None
    assert model.model_dump(exclude_none=True) == {
        "id": "sdxl-x@1.0",
        "name": "sdxl-x",
        "kind": "sdxl-checkpoint",
        "version": "1.0",
        "folder_path": "sdxl-checkpoint/sdxl-x@1.0",
    }
    assert volume.choose_model("sdxl-x", "local-sdxl-epicrealism") is None
    assert volume.choose_model("sdxl-big", "local-sdxl-epicrealism") is None
    assert offered.choose_model("sdxl-x@1.0", "local-sdxl-epicrealism") is None


def test_an_installed_model_goes_to_a_runtime_with_a_models_volume(tmp_path: Path, offered: runtimes.Runtimes):
    (tmp_path / "v.yaml").write_text(WITH_VOLUME)
    volume = runtimes.load(tmp_path / "v.yaml")
    assert volume.choose_runtime(None, "sdxl-x@1.0") is volume.runtimes["small-gpu"]
    assert volume.choose_runtime(None, "sdxl-big@2") is volume.runtimes["big-gpu"]
    assert volume.choose_runtime("default", "sdxl-big@2") is volume.runtimes["default"]
    for bare in ("sketch", None):
        assert volume.choose_runtime(None, bare) is volume.runtimes["default"]
    assert offered.choose_runtime(None, "sdxl-x@1.0") is offered.runtimes["small"]


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
