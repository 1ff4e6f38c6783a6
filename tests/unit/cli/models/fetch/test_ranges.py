"""Stretches of bytes against the plainest model there is: a set of byte numbers."""

from hypothesis import given
from hypothesis import strategies as st

from dreamforge_cli.models.fetch.ranges import Ranges

STRETCHES = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda pair: (min(pair), max(pair))))


def bytes_of(stretches: list[tuple[int, int]]) -> set[int]:
    return {at for start, end in stretches for at in range(start, end)}


@given(STRETCHES)
def test_they_hold_what_was_added_joined_and_in_order(stretches: list[tuple[int, int]]):
    ranges = Ranges(stretches)
    there = bytes_of(stretches)
    assert bytes_of(list(ranges)) == there
    assert ranges.total == len(there)
    assert ranges.end == max(there, default=-1) + 1
    edges = [edge for stretch in ranges for edge in stretch]
    assert edges == sorted(set(edges)), "none is empty, none touches its neighbour"


@given(STRETCHES, st.integers(0, 60))
def test_reach_is_the_first_byte_that_is_not_there(stretches: list[tuple[int, int]], at: int):
    there = bytes_of(stretches)
    expected = next(byte for byte in range(at, 62) if byte not in there)
    assert Ranges(stretches).reach(at) == expected


@given(STRETCHES, st.integers(60, 70), st.integers(1, 20))
def test_missing_is_all_the_rest_in_order_and_in_pieces(stretches: list[tuple[int, int]], size: int, longest: int):
    gaps = Ranges(stretches).missing(size, longest)
    assert bytes_of(gaps) == set(range(size)) - bytes_of(stretches)
    assert sum(end - start for start, end in gaps) == len(bytes_of(gaps))
    assert all(0 < end - start <= longest for start, end in gaps)
    assert gaps == sorted(gaps)
