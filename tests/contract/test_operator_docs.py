"""docs/operator.md names every phase and every reason a condition may carry."""

import re

import pytest

from dreamforge.renderjob.conditions import REASONS, ConditionType, Phase
from tests.contract.project import ROOT

PAGE = (ROOT / "docs/operator.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ConditionType)
def test_every_reason_is_explained(kind: ConditionType):
    section = re.search(rf"\*\*{kind}\*\*(.+?)(?=\n\*\*|\n## |\Z)", PAGE, re.S)
    told = re.findall(r"`(\w+)`", section[1]) if section else []
    if kind is ConditionType.READY:
        assert "the phase" in PAGE
        return
    assert {reason.value for reason in REASONS[kind]} - set(told) == set()


def test_every_phase_has_its_row():
    assert [phase.value for phase in Phase] == re.findall(r"^\| `(\w+)` \| (?:True|False) \|", PAGE, re.M)
