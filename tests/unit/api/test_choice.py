"""Which model a job gets, for every state of the registry."""

from typing import Any, cast

import pytest
from sqlalchemy import RowMapping

from dreamforge.models import DEFAULT_PROVIDER, EPICREALISM, SKETCH_PROVIDER, BackendMode, ModelKind
from dreamforge_api.models.choice import SKETCH_WARNING, NoModel, choose

Row = dict[str, Any]


def row(model_id: str, ordinal: int = 1, **about: Any) -> Row:
    kind = ModelKind.SKETCH if model_id == "sketch" else ModelKind.SDXL_CHECKPOINT
    good: Row = {"installed": True, "enabled": True, "problem": None, "presets": {}, "kind": kind.value}
    return {"id": model_id, "slug": model_id.partition("@")[0], "ordinal": ordinal, **good, **about}


SKETCH = row("sketch", 0)
OLD, NEW = row("sdxl-a@v2", 5), row("sdxl-a@v1", 9)
EPIC = row(f"{EPICREALISM}@8", 2)
PLACED = row("sdxl-placed", 3)
OTHER = row("sdxl-b@1", 4)
GONE = {"installed": False, "problem": "its file is gone"}


def chosen(
    *rows: Row, asked: str | None = None, mode: BackendMode = BackendMode.AUTO, configured: str | None = None,
    provider: str = DEFAULT_PROVIDER,
) -> str:  # fmt: skip
    return choose(cast(list[RowMapping], [SKETCH, *rows]), asked, provider, mode, configured).model_id


@pytest.mark.parametrize(
    ("rows", "asked", "expected"),
    [
        ([OLD, NEW], "sdxl-a", "sdxl-a@v1"),
        ([NEW, OLD], "sdxl-a", "sdxl-a@v1"),
        ([OLD, NEW], "sdxl-a@v2", "sdxl-a@v2"),
        ([OLD, NEW | GONE], "sdxl-a", "sdxl-a@v2"),
        ([OLD, NEW | {"enabled": False}], "sdxl-a", "sdxl-a@v2"),
        ([row(EPICREALISM, 1), EPIC], EPICREALISM, EPICREALISM),
        ([row(EPICREALISM, 1, **GONE), EPIC], EPICREALISM, EPIC["id"]),
    ],
)
def test_an_id_wins_over_a_slug_and_a_slug_means_the_newest_that_works(
    rows: list[Row], asked: str, expected: str
) -> None:
    assert chosen(*rows, asked=asked) == expected
    assert chosen(*rows, asked=asked, mode=BackendMode.SKETCH) == expected, "what is named is taken in every mode"


@pytest.mark.parametrize(
    ("rows", "configured", "expected"),
    [
        ([PLACED, EPIC, OTHER], "sdxl-placed", "sdxl-placed"),
        ([PLACED | GONE, EPIC, OTHER], "sdxl-placed", EPIC["id"]),
        ([EPIC, OTHER], None, EPIC["id"]),
        ([EPIC, row(f"{EPICREALISM}@9", 7), OTHER], None, f"{EPICREALISM}@9"),
        ([OTHER], None, OTHER["id"]),
        ([OTHER, EPIC | GONE], None, OTHER["id"]),
        ([OLD, NEW], None, NEW["id"]),
    ],
)
def test_the_default_is_the_configured_one_then_epicrealism_then_the_only_one(
    rows: list[Row], configured: str | None, expected: str
) -> None:
    for mode in (BackendMode.AUTO, BackendMode.SDXL):
        assert chosen(*rows, mode=mode, configured=configured) == expected
    assert chosen(*rows, mode=BackendMode.SKETCH, configured=configured) == "sketch"
    assert chosen(*rows, provider=SKETCH_PROVIDER, configured=configured) == "sketch"


def test_several_without_a_default_are_named() -> None:
    for mode in (BackendMode.AUTO, BackendMode.SDXL):
        with pytest.raises(NoModel, match="name one") as refused:
            chosen(OTHER, OLD, NEW, mode=mode)
        assert refused.value.usable == ["sdxl-a@v1", "sdxl-a@v2", "sdxl-b@1", "sketch"]


def test_without_any_checkpoint_sketch_renders_and_says_so_but_not_where_sdxl_is_wanted() -> None:
    found = choose(cast(list[RowMapping], [SKETCH, PLACED | GONE]), None, DEFAULT_PROVIDER, BackendMode.AUTO, None)
    assert (found.model_id, found.warning) == ("sketch", SKETCH_WARNING)
    with pytest.raises(NoModel, match="sdxl-placed is registered, but not installed: its file is gone"):
        chosen(PLACED | GONE, mode=BackendMode.SDXL, configured="sdxl-placed")
    with pytest.raises(NoModel, match=f"No model {EPICREALISM} is installed"):
        chosen(mode=BackendMode.SDXL)


@pytest.mark.parametrize(
    ("rows", "asked", "said"),
    [
        ([OTHER], "sdxl-c", "No model sdxl-c is installed and enabled; installed: sdxl-b@1, sketch"),
        ([OLD | GONE], "sdxl-a@v2", "registered, but not installed: its file is gone"),
        ([OLD | GONE, NEW | {"enabled": False}], "sdxl-a", "sdxl-a@v1 is not enabled"),
        ([OTHER], "SDXL-B@1", "No model"),
    ],
)
def test_a_model_that_cannot_be_had_says_why(rows: list[Row], asked: str, said: str) -> None:
    with pytest.raises(NoModel, match=said):
        chosen(*rows, asked=asked)


def test_sketch_that_is_switched_off_is_no_way_out() -> None:
    with pytest.raises(NoModel, match="switched off"):
        choose(cast(list[RowMapping], [SKETCH | {"enabled": False}]), None, SKETCH_PROVIDER, BackendMode.AUTO, None)
