"""Which events are worth a look."""

import pytest

from dreamforge_operator import observed
from dreamforge_operator.news import Looked, News, Version

OLD, NEW = Version("a", "1"), Version("a", "2")


@pytest.fixture
def news() -> News:
    made = News(clock=lambda: 100.0)
    made.looked("castle", Looked(frozenset([OLD]), again_in=7.0))
    return made


def test_what_a_look_took_into_account_is_no_news(news: News):
    news.hear("castle", OLD)
    assert not news.take("castle")


def test_a_version_that_no_look_saw_is_news_beside_ones_that_are_known(news: News):
    news.hear("castle", OLD)
    news.hear("castle", NEW)
    assert news.take("castle")


def test_the_same_version_of_another_object_is_news(news: News):
    news.hear("castle", Version("b", OLD.version))
    assert news.take("castle")


def test_a_clock_that_runs_out_is_worth_a_look_without_an_event(news: News):
    assert news.take("castle")


def test_who_insists_gets_a_look_before_and_after_what_is_known(news: News):
    news.insist("castle")
    news.hear("castle", OLD)
    assert news.take("castle")
    news.hear("castle", OLD)
    news.insist("castle")
    assert news.take("castle")


@pytest.mark.parametrize("end", ["failed", "gone", "forgotten"])
def test_after_a_failed_look_everything_is_news(news: News, end: str):
    match end:
        case "failed":
            news.failed("castle")
        case "gone":
            news.looked("castle", Looked())
        case "forgotten":
            news.keep(["tower"])
    news.hear("castle", OLD)
    assert news.take("castle")


def test_a_child_on_its_way_waits_for_a_look_that_is_due_soon(news: News):
    news.hear("castle", NEW, on_its_way=True)
    assert not news.take("castle")
    assert news.due_in("castle") == 7.0


@pytest.mark.parametrize("again_in", [None, 3600.0])
def test_a_child_on_its_way_is_looked_at_when_no_look_is_due_soon(news: News, again_in: float | None):
    news.looked("castle", Looked(frozenset([OLD]), again_in))
    news.hear("castle", NEW, on_its_way=True)
    assert news.take("castle")


def test_an_event_without_news_leaves_the_clock_of_the_last_look(news: News):
    assert news.due_in("castle") == 7.0
    assert news.due_in("tower") is None


def test_what_a_pass_saw_counts_where_there_was_no_look(news: News):
    both = frozenset([OLD, NEW])
    news.assume({"castle": Looked(both, 1.0), "tower": Looked(both, 3.0)})
    for name in ("castle", "tower"):
        news.hear(name, NEW)
    assert [news.take("castle"), news.take("tower")] == [True, False]
    assert [news.due_in("castle"), news.due_in("tower")] == [7.0, 3.0]


CREATED = {"metadata": {"generation": 1}}


@pytest.mark.parametrize(
    ("body", "waiting"),
    [
        ({**CREATED, "status": {}}, True),
        ({**CREATED, "status": {"active": 1, "ready": 0}}, True),
        ({**CREATED, "status": {"phase": "Pending"}}, True),
        ({**CREATED, "status": {"phase": "Running"}}, False),
        ({**CREATED, "status": {"failed": 1}}, False),
        ({**CREATED, "status": {"conditions": []}}, False),
        ({"metadata": {"generation": 2}, "status": {}}, False),
        ({"metadata": {"deletionTimestamp": "2026-01-02T03:04:05Z"}, "status": {"phase": "Pending"}}, False),
    ],
)
def test_what_has_not_begun_is_on_its_way(body: dict[str, object], waiting: bool):
    assert observed.on_its_way(body) is waiting
