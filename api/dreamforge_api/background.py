"""Work that goes on beside requests and survives whatever happens to it."""

import asyncio
from collections.abc import Awaitable, Callable

from dreamforge import telemetry

_log = telemetry.logger(__name__)


async def every(seconds: float, work: Callable[[], Awaitable[None]], *, name: str) -> None:
    """Run ``work`` now and then every ``seconds``. A failure is told once until the next success."""
    failing = False
    while True:
        try:
            await work()
            failing = False
        except Exception as error:  # noqa: BLE001 - the edge of a background task: it must go on
            if not failing:
                _log.warning("background work fails; trying again", work=name, error=str(error)[:200])
            failing = True
        await asyncio.sleep(seconds)


async def until_done(seconds: float, work: Callable[[], Awaitable[None]], *, name: str) -> None:
    """Run ``work`` until it succeeds once, ``seconds`` apart."""
    while True:
        try:
            await work()
            return
        except Exception as error:  # noqa: BLE001 - the edge of a background task: it must go on
            _log.warning("start-up work fails; trying again", work=name, error=str(error)[:200])
        await asyncio.sleep(seconds)


async def cancel(tasks: list[asyncio.Task[None]]) -> None:
    """End ``tasks`` and wait for them."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
