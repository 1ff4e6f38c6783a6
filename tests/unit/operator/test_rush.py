"""Those without a child go first."""

import asyncio

from dreamforge_operator.rush import Places, Rush, Turn

PATIENCE_SECONDS = 30.0


async def rest() -> None:
    """All that can go on has gone on."""
    for _ in range(10):
        await asyncio.sleep(0)


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


def test_when_the_rush_is_over_all_go_on() -> None:
    async def play() -> None:
        rush = Rush(10)
        turns = [await rush.turn() for _ in range(10)]
        await asyncio.gather(*(soon(turn) for turn in turns))  # none has left its place yet

    asyncio.run(play())


def test_who_is_asked_to_hurry_gives_way_no_longer_and_goes_before_the_later_ones() -> None:
    async def play() -> None:
        rush = Rush(1)
        hurried, patient = await rush.turn(), Turn(rush, Places(1))
        giving = [asyncio.create_task(turn.give_way(3600.0)) for turn in (hurried, patient)]
        await rest()
        hurried.hurry()
        hurried.hurry()
        await rest()
        assert [task.done() for task in giving] == [True, False]
        giving[1].cancel()

    asyncio.run(play())


def test_fewer_places_send_nobody_away_and_let_nobody_in() -> None:
    async def play() -> None:
        places = Places(2)
        await places.take()
        await places.take()
        waiting = [asyncio.create_task(places.take()) for _ in range(3)]
        places.resize(1)
        places.leave()
        await rest()
        assert [task.done() for task in waiting] == [False, False, False]
        places.leave()
        await rest()
        assert [task.done() for task in waiting] == [True, False, False]
        places.resize(3)
        await rest()
        assert [task.done() for task in waiting] == [True, True, True]

    asyncio.run(play())


def test_who_does_not_wait_any_more_takes_no_place() -> None:
    async def play() -> None:
        places = Places(1)
        await places.take()
        waiting = [asyncio.create_task(places.take()) for _ in range(2)]
        await rest()
        waiting[0].cancel()
        places.leave()
        await rest()
        assert waiting[1].done()

    asyncio.run(play())


def test_a_place_is_given_back_once() -> None:
    async def play() -> None:
        rush = Rush(1)
        turn = await rush.turn()
        turn.end()
        turn.end()
        await rush.turn()
        second = asyncio.create_task(rush.turn())
        await rest()
        assert not second.done()
        second.cancel()

    asyncio.run(play())
