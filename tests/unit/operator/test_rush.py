"""Those without a child go first."""

import asyncio

from dreamforge_operator.rush import Rush, Turn

PATIENCE_SECONDS = 30.0


async def soon(turn: Turn) -> None:
    """It has its place again."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        await turn.give_way(0.0)


def test_who_gives_way_leaves_the_place_to_the_next() -> None:
    async def play() -> None:
        rush = Rush(1)
        first = await rush.turn()
        giving = asyncio.create_task(first.give_way(3600.0))
        async with asyncio.timeout(PATIENCE_SECONDS):
            await rush.turn()
        assert not giving.done(), "an hour of a busy API server is no lull"
        giving.cancel()

    asyncio.run(play())


def test_what_waited_goes_on_few_at_a_time() -> None:
    async def play() -> None:
        rush = Rush(10)
        turns = [await rush.turn() for _ in range(10)]
        waiting = {asyncio.create_task(soon(turn)): turn for turn in turns}
        over = 0
        while waiting:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(0)
            at_work = [task for task in waiting if task.done()]
            assert len(at_work) < len(turns) / 2
            over += len(at_work)
            for task in at_work:
                task.result()
                waiting.pop(task).end()
        assert over == len(turns)

    asyncio.run(play())


def test_a_place_is_given_back_once() -> None:
    async def play() -> None:
        rush = Rush(1)
        turn = await rush.turn()
        turn.end()
        turn.end()
        await rush.turn()
        second = asyncio.create_task(rush.turn())
        for _ in range(10):
            await asyncio.sleep(0)
        assert not second.done()
        second.cancel()

    asyncio.run(play())
