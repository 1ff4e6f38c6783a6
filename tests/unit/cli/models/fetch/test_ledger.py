"""The account that the threads of a download share; here one thread plays them all."""

import pytest

from dreamforge_cli.models.fetch.ledger import Due, Ledger, Stopped
from dreamforge_cli.models.fetch.ranges import Ranges


def ledger(done: list[tuple[int, int]] | None = None, hashed: int = 0, window: int = 40) -> Ledger:
    made = Ledger(100, Ranges(done or []), hashed, window)
    made.plan(Ranges(done or []).missing(100, 20))
    return made


def test_stretches_are_given_out_in_order_and_back():
    account = ledger()
    assert account.take() == (0, 20)
    assert account.take() == (20, 40)
    account.give_back((5, 20))
    assert account.take() == (5, 20)


def test_bytes_are_hashed_in_order_whatever_order_they_come_in():
    account = ledger()
    account.take()
    account.take()
    account.record(20, b"c" * 10)
    account.record(0, b"a" * 15)
    assert account.due() == Due(0, [b"a" * 15])
    account.hashed(15)
    account.record(15, b"b" * 5)
    assert account.due() == Due(15, [b"b" * 5, b"c" * 10])
    account.hashed(30)
    assert (account.there, account.received, list(account.done())) == (30, 30, [(0, 30)])


def test_what_an_earlier_run_left_is_read_up_to_where_memory_begins():
    account = ledger(done=[(0, 30)], hashed=10)
    assert account.due() == Due(10, [], 20)
    account.take()
    account.record(30, b"x" * 5)
    assert account.due() == Due(10, [], 20)
    account.hashed(30)
    assert account.due() == Due(30, [b"x" * 5])


def test_it_is_over_when_all_is_hashed():
    account = ledger(done=[(0, 100)], hashed=100)
    assert account.take() is None
    assert account.due() is None
    account.finish()
    assert account.ended(0)


def test_what_is_in_memory_is_hashed_even_after_a_failure():
    account = ledger()
    account.take()
    account.record(0, b"abc")
    account.stop(ValueError())
    assert account.due() == Due(0, [b"abc"])
    account.hashed(3)
    with pytest.raises(Stopped):
        account.due()


def test_a_failure_stops_everyone_and_the_first_one_counts():
    account = ledger()
    first = ValueError("first")
    assert not account.ended(0)
    account.stop(first)
    account.stop(ValueError("second"))
    assert account.failure is first
    assert account.ended(0)
    for call in (account.take, account.due, account.check, lambda: account.record(0, b"x"), lambda: account.pause(9)):
        with pytest.raises(Stopped):
            call()
