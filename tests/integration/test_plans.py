"""With many jobs in the database, no hot statement reads a whole table or sifts through rows it does not want."""

from benchmarks import history, plans

JOBS = 20_000
#: A page of a common label is found by walking back; nothing else looks at rows for nothing.
MOST_WASTED = 1000


def test_hot_statements_use_indexes(database_url: str) -> None:
    history.fill(database_url, JOBS, events=4)

    found = plans.plans(database_url)

    assert len(found) > 60
    assert {plan.name: plan.scanned for plan in found if plan.scanned} == {}
    assert {plan.name: plan.wasted for plan in found if plan.wasted > MOST_WASTED} == {}
