"""How long to wait, how often, and when not to."""

import pytest

from dreamforge_cli.models.errors import NetworkError
from dreamforge_cli.models.fetch.answers import TryAgain
from dreamforge_cli.models.fetch.limits import Limits
from dreamforge_cli.models.fetch.patience import PROGRESS_BYTES, Patience

LIMITS = Limits(tries=4, pause_seconds=1, longest_pause_seconds=4, longest_retry_after_seconds=60)
FAILED = TryAgain("it failed")


def test_each_pause_is_twice_the_last_up_to_the_longest_and_never_in_step():
    pauses = [[one.pause(FAILED, 0, 0) for _ in range(4)] for one in [Patience(LIMITS) for _ in range(50)]]
    for number, longest in enumerate((1, 2, 4, 4)):
        column = [row[number] for row in pauses]
        assert all(longest / 2 <= pause <= longest for pause in column)
        assert len(set(column)) > 40


def test_it_ends_after_so_many_failures_in_a_row_and_progress_begins_a_new_row():
    patience = Patience(LIMITS)
    for _ in range(3):
        patience.pause(FAILED, PROGRESS_BYTES - 1, 5)
    spent = [patience.exhausted]
    patience.pause(FAILED, PROGRESS_BYTES, 70)
    assert patience.since == 70
    for _ in range(3):
        spent.append(patience.exhausted)
        patience.pause(FAILED, 0, 99)
    assert [*spent, patience.exhausted] == [False] * 4 + [True]
    assert patience.since == 70


def test_after_a_success_the_next_failure_is_a_first():
    patience = Patience(LIMITS)
    for _ in range(3):
        patience.pause(FAILED, 0, 0)
    patience.reward()
    patience.pause(FAILED, 0, 500)
    assert (patience.exhausted, patience.since) == (False, 500)


def test_the_server_s_wish_counts_unless_it_is_absurd():
    assert Patience(LIMITS).pause(TryAgain("busy", 60), 0, 0) == 60
    assert Patience(LIMITS).pause(TryAgain("busy", 0), 0, 0) >= 0.5
    with pytest.raises(NetworkError, match="1000000000 seconds"):
        Patience(LIMITS).pause(TryAgain("busy", 1e9), 0, 0)
