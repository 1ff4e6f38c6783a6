"""The running operator: one queue, some workers, a full pass on a timer, and what it tells the outside."""

import asyncio
import random
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any

from dreamforge import telemetry
from dreamforge.announcements import Progress
from dreamforge.errors import DreamForgeError, Unavailable
from dreamforge.renderjob.conditions import Phase
from dreamforge.renderjob.resource import RenderJob
from dreamforge.renderjob.status import UNSEEN
from dreamforge_operator import metrics
from dreamforge_operator.announcer import Announcer
from dreamforge_operator.children import ChildWatch
from dreamforge_operator.cluster import JOBS, PODS, Cluster, Json
from dreamforge_operator.full_pass import FullPass
from dreamforge_operator.news import News, Version
from dreamforge_operator.plan import Platform
from dreamforge_operator.progress import ProgressBoard
from dreamforge_operator.queue import WorkQueue
from dreamforge_operator.reconcile import Reconciler
from dreamforge_operator.rush import Rush, Turn
from dreamforge_operator.settings import OperatorSettings
from dreamforge_operator.situation import Refusal
from dreamforge_operator.twins import Twins

log = telemetry.logger(__name__)

#: Without a full pass for so long, the process is no use: restart it.
DEAD_AFTER_SECONDS = 120.0
_RETRY_SECONDS = 2.0
#: A pass may take this share of the time between two of them; with more objects there are fewer passes.
_PASS_SHARE = 0.02
_LONGEST_BETWEEN = 60.0
#: What happens to a child comes in bursts (made, counted, scheduled), and one look does for all of a burst.
_CHILD_DELAY_SECONDS = 0.2
#: Jobs that wait for room may be thousands, and asking why takes five requests each: some of them after each pass.
_MOST_WAITING = 200


class Reporting:
    """What the reconciler says to and hears from the rest of the system; all of it is optional."""

    def __init__(self, board: ProgressBoard, announcer: Announcer | None) -> None:
        self.board = board
        self.announcer = announcer

    def tell(self, rj: RenderJob) -> None:
        if rj.status.phase is Phase.RENDERING:
            self.board.watch(str(rj.job_id), rj.metadata.name)
        else:
            self.board.forget(str(rj.job_id))
        if self.announcer is not None:
            self.announcer.tell(rj)

    def refusal(self, uid: str) -> Refusal | None:
        return None if self.announcer is None else self.announcer.refusal(uid)

    def progress(self, job_id: str) -> Progress | None:
        return self.board.take(job_id)


class Operator:
    """Everything that runs between start and stop."""

    def __init__(
        self, settings: OperatorSettings, cluster: Cluster, platform: Platform, announcer: Announcer | None = None
    ) -> None:
        self._settings = settings
        self._cluster = cluster
        self._platform = platform
        self.queue: WorkQueue[str] = WorkQueue()
        self._announcer = announcer
        self._news = News()
        self._fresh: dict[str, Json] = {}
        self._rush = Rush(settings.operator_workers)
        self._turns: dict[str, Turn] = {}
        self._reports = Reporting(ProgressBoard(self.look), announcer)
        self._twins = Twins(self.look)
        self._full_pass = FullPass(cluster, platform, self._reports.tell)
        self._reconciler = Reconciler(cluster, platform, self._reports, self._twins)
        self._tasks: list[asyncio.Task[None]] = []
        self._alive_at = time.monotonic()
        self._passed = asyncio.Event()

    @property
    def alive(self) -> bool:
        """A full pass has ended not long ago."""
        return time.monotonic() - self._alive_at < DEAD_AFTER_SECONDS

    @property
    def ready(self) -> bool:
        """The first full pass has ended."""
        return self._passed.is_set()

    def start(self) -> None:
        """Begin; looks wait for the first full pass."""
        self._run(self._passes())
        self._run(self._looks())
        for resource in (JOBS, PODS):
            self._run(ChildWatch(self._cluster, resource, self.child_seen).follow())
        if self._settings.redis_url:
            self._run(self._reports.board.listen(self._settings.redis_url))
        if self._announcer is not None:
            self._run(self._announcer.run())

    async def stop(self) -> None:
        """End at once: whatever was half done is found by the next process."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def look(self, name: str, delay: float = 0.0) -> None:
        """Have a RenderJob looked at, whatever is known of it."""
        self._news.insist(name)
        self.queue.add(name, delay)

    def renderjob_seen(self, body: Json) -> None:
        """A RenderJob is there or has changed."""
        meta = body["metadata"]
        name = meta["name"]
        if body.get("status", {}).get("observedGeneration", UNSEEN) == UNSEEN:
            self._fresh[name] = body
            self._rush.stir()
        self._hurry(name)
        self._news.hear(name, Version(meta["uid"], meta["resourceVersion"]))
        self.queue.add(name)

    def child_seen(self, name: str, version: Version, *, on_its_way: bool) -> None:
        """A Job or a pod of this RenderJob is there, has changed or is gone."""
        self._news.hear(name, version, on_its_way=on_its_way)
        self.queue.add(name, _CHILD_DELAY_SECONDS)

    def deleted(self, name: str, uid: str) -> None:
        """A RenderJob was seen to go."""
        self._fresh.pop(name, None)
        self._hurry(name)
        self.look(name)
        if self._announcer is not None:
            self._announcer.deleted(uid)

    def _hurry(self, name: str) -> None:
        """A look that gives way would read what is no longer so."""
        if turn := self._turns.get(name):
            turn.hurry()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work))

    async def _looks(self) -> None:
        """Begin every look that is worth it. One waits for keys: all of them would wake for each."""
        await self._passed.wait()
        async with asyncio.TaskGroup() as looks:
            while True:
                turn = await self._rush.turn()
                name = await self.queue.get()
                fresh = self._fresh.pop(name, None)
                if self._news.take(name):
                    looks.create_task(self._look(name, fresh, turn))
                else:
                    self.queue.done(name, self._news.due_in(name))
                    turn.end()

    async def _look(self, name: str, fresh: Json | None, turn: Turn) -> None:
        started = time.perf_counter()
        self._turns[name] = turn
        try:
            result = await self._look_at(name, fresh, turn)
        finally:
            del self._turns[name]
            turn.end()
        metrics.RECONCILES.labels(result).inc()
        metrics.RECONCILE_SECONDS.observe(time.perf_counter() - started)
        metrics.QUEUE_KEYS.set(len(self.queue))

    async def _look_at(self, name: str, fresh: Json | None, turn: Turn) -> str:
        try:
            looked = await self._reconciler.reconcile(name, fresh, turn.give_way)
        except Unavailable as error:
            wait = self._failed(name)
            log.warning("look again later", renderjob=name, cause=str(error), seconds=round(wait, 1))
            return "retry"
        except DreamForgeError as error:
            self._failed(name)
            log.error("a look failed", renderjob=name, cause=type(error).__name__)
            return "error"
        except Exception as error:  # noqa: BLE001 - one odd object must not end the operator
            self._failed(name)
            # The text of an error may repeat the object; its type and place do not.
            log.error("a look failed by a defect", renderjob=name, error=type(error).__name__, at=_place(error))
            return "error"
        self._news.looked(name, looked)
        self.queue.done(name, looked.again_in)
        return "ok"

    def _failed(self, name: str) -> float:
        self._news.failed(name)
        return self.queue.failed(name)

    async def _passes(self) -> None:
        while True:
            started = time.monotonic()
            try:
                await self._pass()
            except Unavailable as error:
                log.warning("no full pass", cause=str(error))
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            except Exception as error:  # noqa: BLE001 - the next pass may go well; liveness tells when none does
                log.error("a full pass failed", error=type(error).__name__, at=_place(error))
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            self._alive_at = time.monotonic()
            took = self._alive_at - started
            metrics.PASS_SECONDS.set(took)
            metrics.PASS_ENDED.set_to_current_time()
            self._passed.set()
            await asyncio.sleep(min(max(self._settings.operator_pass_seconds, took / _PASS_SHARE), _LONGEST_BETWEEN))

    async def _pass(self) -> None:
        # What is made while the list is read is not in it, and lives.
        known = self._announcer.known() if self._announcer is not None else set()
        found = await self._full_pass.look(datetime.now(UTC))
        self._twins.replace(found.twins)
        self._reports.board.keep(found.rendering)
        self._news.keep(found.names)
        self._news.assume(found.settled)
        if self._announcer is not None:
            self._announcer.forget(known - found.uids)
            metrics.ANNOUNCEMENTS.set(len(self._announcer))
        for phase in Phase:
            metrics.RENDERJOBS.labels(phase.value).set(found.phases[phase])
        waiting = random.sample(found.waiting, min(len(found.waiting), _MOST_WAITING))
        for name in (*found.look_at, *waiting):
            self.look(name)
        for child in found.orphans:
            if not child.deleting:
                await self._cluster.delete(JOBS, child.name, uid=child.uid)


def _place(error: BaseException) -> str:
    """File and line where it was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else ""
