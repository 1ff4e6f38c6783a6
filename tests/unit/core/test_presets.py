"""Presets: which one a name means, and what a model's descriptor may bring."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from dreamforge import presets
from dreamforge.presets import PRESETS, PresetName
from dreamforge.spec import RenderParams

OWN = presets.read({
    "portrait@2": {"gpu_memory_gib": 10, "defaults": {"steps": 8}},
    "portrait@10": {"gpu_memory_gib": 10, "defaults": {"steps": 9}},
    "draft@1": {"gpu_memory_gib": 10, "defaults": {"steps": 7, "scheduler": "ddim"}},
})  # fmt: skip


def test_a_name_without_its_version_means_the_newest_and_the_models_own_come_first() -> None:
    meant = presets.requestable(OWN)
    assert meant["portrait"] == "portrait@10", "versions are numbers, not text"
    assert meant["portrait@1"] == "portrait@1", "one that the model does not bring is everybody's"
    assert meant["quality"] == "quality@1"
    assert presets.offered(OWN)[meant["draft"]].fills == {"steps": 7, "scheduler": "ddim"}
    assert set(meant.values()) == set(presets.offered(OWN)) == set(PRESETS) | set(OWN)


def test_without_own_ones_every_model_has_those_for_all() -> None:
    assert presets.offered({}) == PRESETS
    assert set(presets.requestable({})) == {*PRESETS, *(name.partition("@")[0] for name in PRESETS)}


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_what_everybodys_presets_fill_in_is_a_good_request(name: str) -> None:
    fills = PRESETS[name].fills
    assert RenderParams.model_validate({"prompt": "x", **fills}).steps == fills["steps"]


def test_what_changes_the_picture_for_speed_says_fast_and_nothing_else_does() -> None:
    assert {name for name in PRESETS if name.startswith("fast-")} == {"fast-guidance-cutoff@1", "fast-few-steps@1"}
    cut = {name: one.fills["guidance_cutoff"] for name, one in PRESETS.items() if "guidance_cutoff" in one.fills}
    assert cut == {"fast-guidance-cutoff@1": 0.4}
    assert PRESETS["fast-few-steps@1"].fills["steps"] == PRESETS["standard@1"].fills["steps"] // 3
    assert RenderParams(prompt="x").guidance_cutoff is None


@pytest.mark.parametrize(
    "defaults",
    [{"prompt": "x"}, {"count": 2}, {"width": 100}, {"steps": 0}, {"steps": "4"}, {"scheduler": "x"}, {"seed": 1}],
)
def test_a_models_preset_keeps_the_rules_of_a_request(defaults: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        presets.read({"own@1": {"gpu_memory_gib": 8, "defaults": defaults}})


@pytest.mark.parametrize(
    "name", ["own", "own@0", "own@01", "Own@1", "-own@1", "own-@1", "own@1 ", "@1", "a" * 33 + "@1"]
)
def test_a_presets_name_ends_in_its_version(name: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(PresetName).validate_python(name)
