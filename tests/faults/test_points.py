"""Every named crash point kills once under load, and nothing is lost."""

import pytest

from tests.faults.chores import CHORES
from tests.faults.marks import POINTS


@pytest.mark.parametrize("point", POINTS)
def test_a_crash_at(stack, attack, point):
    def crash(_):
        stack.marks.arm(point)
        try:
            if chore := CHORES.get(point):
                chore(stack, point)
            stack.killed_at(point)
        finally:
            stack.marks.disarm(point)

    attack(crash)


def test_every_point_has_killed(stack):
    assert stack.marks.never_killed() == set()
