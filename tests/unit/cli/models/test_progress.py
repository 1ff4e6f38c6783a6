"""How far and how fast: figures from counts and times."""

from dreamforge_cli.models.progress import Meter


def test_an_unknown_size_makes_the_total_unknown():
    meter = Meter()
    meter.add({"a": 10, "b": None})
    meter.here("a", 4)
    reading = meter.reading(0.0)
    assert (reading["bytes_done"], reading["bytes_total"], reading["eta_seconds"]) == (4, None, None)


def test_the_rate_is_that_of_the_last_ten_seconds():
    meter = Meter()
    meter.add({"a": 10_000})
    for second in range(30):
        meter.here("a", 10 * second if second < 10 else 100 * second)
        reading = meter.reading(float(second))
    assert reading["bytes_per_second"] == 100
    assert reading["eta_seconds"] == (10_000 - 2900) / 100
    assert reading["file"] == "a"


def test_what_was_there_already_is_no_speed():
    meter = Meter()
    meter.add({"a": 1000, "b": 1000})
    meter.here("a", 1000)
    assert meter.reading(0.0)["bytes_per_second"] == 0
    meter.here("b", 10)
    assert meter.reading(1.0)["bytes_per_second"] == 10
