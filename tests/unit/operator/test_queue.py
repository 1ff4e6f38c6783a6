"""The queue of keys, on a clock of the test's own."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from dreamforge_operator.queue import FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS, WorkQueue, backoff


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def drained(queue: WorkQueue[str]) -> list[str]:
    """Keys that are due, worked on one by one."""
    found: list[str] = []
    while queue.ready:
        key = await asyncio.wait_for(queue.get(), 5)
        found.append(key)
        queue.done(key)
    return found


def test_a_key_waits_once():
    async def story() -> list[str]:
        queue: WorkQueue[str] = WorkQueue()
        for key in "abaacb":
            queue.add(key)
        return await drained(queue)

    assert asyncio.run(story()) == ["a", "b", "c"]


def test_what_happens_during_a_look_costs_one_more():
    async def story() -> list[int]:
        queue: WorkQueue[str] = WorkQueue()
        queue.add("a")
        key = await queue.get()
        queue.add("a")
        queue.add("a")
        seen = [queue.ready]
        queue.done(key)
        return [*seen, len(await drained(queue))]

    assert asyncio.run(story()) == [0, 1]


def test_a_delay_is_kept_and_an_earlier_date_wins():
    async def story() -> list[list[str]]:
        clock = Clock()
        queue: WorkQueue[str] = WorkQueue(clock)
        queue.add("late", 10)
        queue.add("both", 10)
        queue.add("both", 1)
        queue.add("both", 20)
        seen = [await drained(queue)]
        for clock.now in (1.5, 11.0, 30.0):
            seen.append(await drained(queue))
        return seen

    assert asyncio.run(story()) == [[], ["both"], ["late"], []]


def test_a_failure_returns_later_each_time_and_an_event_does_not_shorten_it():
    async def story() -> tuple[list[float], int]:
        clock = Clock()
        queue: WorkQueue[str] = WorkQueue(clock)
        waits = []
        queue.add("a")
        for _ in range(4):
            key = await asyncio.wait_for(queue.get(), 5)
            queue.add("a")
            waits.append(queue.failed(key))
            clock.now += waits[-1]
        return waits, len(queue)

    waits, left = asyncio.run(story())
    assert left == 1
    assert waits[0] <= FIRST_RETRY_SECONDS
    assert waits[3] > waits[0]


@given(st.integers(1, 10_000))
def test_backoff_is_bounded(failures: int):
    assert 0 < backoff(failures) <= LAST_RETRY_SECONDS


def test_a_waiting_worker_wakes_up():
    async def story() -> str:
        queue: WorkQueue[str] = WorkQueue()
        worker = asyncio.create_task(queue.get())
        await asyncio.sleep(0)
        queue.add("a")
        return await asyncio.wait_for(worker, 5)

    assert asyncio.run(story()) == "a"
