"""Who goes first when a model is loaded, and that nobody waits for ever."""

from hypothesis import given
from hypothesis import strategies as st

from dreamforge_runner import affinity
from dreamforge_runner.affinity import LOOK_AHEAD, PATIENCE_SECONDS, Waiting

jobs = st.builds(
    Waiting, st.uuids().map(str), st.sampled_from([None, "a", "b", "c"]), st.floats(0, 2 * PATIENCE_SECONDS)
)


def waiting(*models: str | None, waited: float = 1.0) -> list[Waiting]:
    return [Waiting(str(place), model, waited) for place, model in enumerate(models)]


def test_the_loaded_model_goes_first():
    assert affinity.choose(waiting("b", "a", "a"), "a") == 1
    assert affinity.choose(waiting("b", "c", "a"), "a") == 2


def test_without_a_reason_the_first_goes_first():
    assert affinity.choose(waiting("b", "c"), "a") == 0
    assert affinity.choose(waiting("b", "a"), None) == 0
    assert affinity.choose(waiting(None, None), None) == 0


def test_far_behind_is_too_far():
    assert affinity.choose(waiting(*["b"] * LOOK_AHEAD, "a"), "a") == 0


def test_a_job_that_has_waited_is_not_overtaken():
    assert affinity.choose([Waiting("0", "b", PATIENCE_SECONDS + 1), *waiting("a")], "a") == 0
    # Nor is one in second place, by one behind it.
    assert affinity.choose([*waiting("b"), Waiting("1", "b", PATIENCE_SECONDS + 1), *waiting("a")], "a") == 0


@given(st.lists(jobs, min_size=1, max_size=20), st.sampled_from([None, "a", "b"]))
def test_only_young_jobs_are_overtaken_and_only_for_the_loaded_model(queue: list[Waiting], loaded: str | None):
    place = affinity.choose(queue, loaded)
    if place:
        assert queue[place].model == loaded
        assert all(job.model != loaded and job.waited_seconds <= PATIENCE_SECONDS for job in queue[:place])
        assert place < LOOK_AHEAD
