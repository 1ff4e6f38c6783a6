"""Servers that forget, and processes that stand still: worse than dying, because nobody is told."""

import time

import httpx
import pytest

from tests.faults import oracle
from tests.faults.chaos import Chaos
from tests.faults.load import Account, Load
from tests.faults.stack import Stack
from tests.servers.stack import until

OUTAGE_SECONDS = 20.0
REFUSING_SECONDS = 8.0


def status(stack: Stack, path: str) -> int | None:
    try:
        return stack.client.http.get(path).status_code
    except httpx.TransportError:
        return None


def test_redis_emptied_and_killed_in_the_middle(stack, attack):
    def faults(load: Load):
        until(lambda: len(load.account.jobs) >= 3, 60, "jobs under way")
        stack.wipe_redis()
        until(lambda: len(load.account.jobs) >= 6, 60, "more jobs under way")
        stack.wipe_redis()

    attack(faults)


def test_postgres_away_for_a_while(stack, attack):
    """It hangs instead of refusing: no connection breaks, none is answered."""

    def faults(load: Load):
        until(lambda: len(load.account.jobs) >= 3, 60, "jobs under way")
        with stack.frozen("postgres"):
            back = time.monotonic() + OUTAGE_SECONDS
            until(lambda: status(stack, "/readyz") == 503, 10, "the API knows")
            while time.monotonic() < back:
                assert status(stack, "/healthz") == 200, "the API itself is well"
                assert status(stack, "/v1/jobs") == 503
                time.sleep(0.2)

    account = attack(faults)
    print(f"slowest answer {account.slowest:.1f} s")


def test_postgres_shut_down_for_a_while(stack, attack):
    """It refuses connections: every part must open new ones when it is back."""
    outages = []

    def faults(load: Load):
        load.pile(10)
        outages.append(Chaos(stack, 0).stop_postgres(REFUSING_SECONDS))

    attack(faults)
    [outage] = outages
    print(f"away {outage.away:g} s, {outage.backlog} jobs open, drained {outage.drained:.1f} s after its return")
    assert outage.backlog > 0


@pytest.mark.parametrize("wakes", ["meanwhile", "afterwards"])
def test_a_runner_that_stood_still_while_its_job_was_given_away(stack, attack, wakes):
    """The other runner takes the job over; the sleeper's work changes nothing (I6)."""

    def faults(_: Load):
        job = stack.client.post(count=20, width=1024, height=1024, labels={"keyless": "yes"})["id"]
        sleeper = until(lambda: stack.runner_of(job), 60, "a runner of the job")
        with stack.still([sleeper]):
            until(lambda: attempts(stack, job) > 1, 60, "another attempt")
            if wakes == "afterwards":
                stack.client.wait(job)
        stack.client.wait(job)

    attack(faults)


def test_what_lost_attempts_stored_is_removed_and_nothing_else(stack, attack):
    attack(lambda load: until(lambda: load.account.jobs, 60, "jobs under way"))
    print(stack.remove_orphans())
    verdict = oracle.judge(stack, Account())
    assert (verdict.found, verdict.strays) == ({}, 0)


def attempts(stack: Stack, job: str) -> int:
    return len(stack.rows("SELECT 1 AS one FROM attempts WHERE job_id = %s", job))
