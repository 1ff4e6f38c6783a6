"""From a registry row to what a runner is told of the model."""

import pytest

from dreamforge_api.worker.models import folder_path

FILES = [
    {"path": "config/model_index.json", "role": "config", "size_bytes": 2, "sha256": "0" * 64},
    {"path": "x.safetensors", "role": "checkpoint", "size_bytes": 2, "sha256": "1" * 64},
]


@pytest.mark.parametrize(
    ("folder", "files", "told"),
    [
        ("sdxl-checkpoint/sdxl-x@1.0", FILES, "sdxl-checkpoint/sdxl-x@1.0/x.safetensors"),
        (None, [], None),
        (None, FILES, None),
        ("sdxl-checkpoint/sdxl-x@1.0", FILES[:1], None),
    ],
)
def test_only_installed_models_have_a_place_below_the_root(
    folder: str | None, files: list[dict[str, object]], told: str | None
):
    assert folder_path(folder, files) == told
