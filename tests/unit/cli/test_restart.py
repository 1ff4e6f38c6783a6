"""The pause before a dead child starts again."""

from dreamforge_cli.up.restart import Restarts


def delays(lives: list[float]) -> list[float]:
    restarts, seen = Restarts(), list[float]()
    for lived in lives:
        restarts = restarts.after(lived)
        seen.append(restarts.delay_seconds)
    return seen


def test_the_first_restart_is_quick_and_the_pause_doubles():
    assert delays([0.1] * 4) == [0.2, 0.4, 0.8, 1.6]


def test_the_pause_never_grows_beyond_ten_seconds():
    assert delays([0] * 2000)[-1] == 10.0


def test_a_long_life_forgives_what_was_before():
    assert delays([0, 0, 0, 31])[-1] == 0.2


def test_it_never_gives_up():
    assert all(delay > 0 for delay in delays([0] * 50))
