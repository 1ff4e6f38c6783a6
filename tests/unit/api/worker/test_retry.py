"""What follows an attempt: the whole table."""

from dataclasses import replace

import pytest

from dreamforge.errors import FACTS, POISONOUS, ErrorCode
from dreamforge.events import Failure, Outcome
from dreamforge_api.worker.retry import RetryPolicy, Standing, Then, after

POLICY = RetryPolicy(max_attempts=3, first_delay=2, longest_delay=10, jitter=0.2)


def standing(failures: int = 0, cancel: bool = False, completed: int = 0) -> Standing:
    return Standing(failures, cancel, completed, count=2)


@pytest.mark.parametrize("cancel", [False, True])
def test_a_complete_success_succeeds(cancel: bool) -> None:
    assert after(Outcome.SUCCEEDED, None, standing(cancel=cancel, completed=2), POLICY).then is Then.SUCCEED


def test_a_success_with_items_missing_is_a_defect() -> None:
    decision = after(Outcome.SUCCEEDED, None, standing(completed=1), POLICY)
    assert decision.then is Then.FAIL
    assert decision.failure is not None
    assert decision.failure.code is ErrorCode.INTERNAL


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.STOPPED, Outcome.CANCELED])
def test_a_cancel_wins_over_everything_but_success(outcome: Outcome) -> None:
    failure = Failure(code=ErrorCode.STORAGE_ERROR, message="x") if outcome is Outcome.FAILED else None
    assert after(outcome, failure, standing(cancel=True), POLICY).then is Then.CANCEL


@pytest.mark.parametrize("outcome", [Outcome.STOPPED, Outcome.CANCELED])
def test_a_stop_nobody_asked_for_is_free(outcome: Outcome) -> None:
    decision = after(outcome, None, standing(failures=2), POLICY)
    assert (decision.then, decision.counted, decision.delay) == (Then.AGAIN, False, POLICY.stop_delay)
    assert POLICY.stop_delay > 0, "the runner that stops still has its lease"


def test_a_cluster_waits_as_it_likes_after_a_stop() -> None:
    decision = after(Outcome.STOPPED, None, replace(standing(), retried_by_cluster=True), POLICY)
    assert (decision.then, decision.counted, decision.delay) == (Then.AGAIN, False, 0)


@pytest.mark.parametrize("code", list(ErrorCode))
def test_only_what_may_pass_is_tried_again(code: ErrorCode) -> None:
    decision = after(Outcome.FAILED, Failure(code=code, message="x"), standing(), POLICY)
    assert decision.then is (Then.AGAIN if FACTS[code].retryable else Then.FAIL)


def test_tries_are_bounded_and_wait_longer_each_time() -> None:
    failure = Failure(code=ErrorCode.PROVIDER_ERROR, message="x")
    first = after(Outcome.FAILED, failure, standing(failures=0), POLICY)
    second = after(Outcome.FAILED, failure, standing(failures=1), POLICY)
    third = after(Outcome.FAILED, failure, standing(failures=2), POLICY)
    assert 1.6 <= first.delay <= 2.4
    assert 3.2 <= second.delay <= 4.8
    assert third.then is Then.FAIL
    assert RetryPolicy(longest_delay=10, jitter=0).delay(9) == 10


@pytest.mark.parametrize("code", sorted(POISONOUS))
@pytest.mark.parametrize("most", [1, 2, 3, 10])
def test_what_kills_its_runner_gets_two_tries_at_most(code: ErrorCode, most: int) -> None:
    policy = RetryPolicy(max_attempts=most)
    failure = Failure(code=code, message="x")
    decisions = [after(Outcome.FAILED, failure, standing(failures=n), policy).then for n in range(most)]
    assert decisions.count(Then.AGAIN) == min(most, 2) - 1
    assert decisions[min(most, 2) - 1] is Then.FAIL


def test_other_failures_keep_all_their_tries() -> None:
    assert {RetryPolicy(max_attempts=5).tries(code) for code in FACTS} == {1, 2, 5}
