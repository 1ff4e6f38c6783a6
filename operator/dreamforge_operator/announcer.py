"""Tells ingest of RenderJobs, and keeps telling until it is answered.

Nothing here can stop reconciling: :meth:`Announcer.tell` only notes what is to be said, and a Redis that is down
costs retries in a task of its own. What was answered is remembered for as long as the object lives; after a restart
Redis is asked before anything is said twice.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dreamforge import telemetry
from dreamforge.announcements import Announcement, Answer, JobDeleted, JobWaiting, Reception
from dreamforge.errors import ErrorCode
from dreamforge.renderjob.conditions import AcceptedReason
from dreamforge.renderjob.resource import RenderJob
from dreamforge.transport.base import AnnouncementSink, TransportUnavailable
from dreamforge_operator import announcing
from dreamforge_operator.situation import Refusal

log = telemetry.logger(__name__)

_TICK_SECONDS = 0.5
_AGAIN_SECONDS = 30.0
_REST_SECONDS = 5.0
_AT_ONCE = 200
_REGISTERED = "job.registered"

_REFUSALS = {
    Reception.TAKEN: (AcceptedReason.DUPLICATE_JOB_ID, ErrorCode.DISPATCH_REFUSED),
    Reception.INVALID: (AcceptedReason.INVALID_INPUT, ErrorCode.INVALID_INPUT),
    Reception.UNKNOWN_MODEL: (AcceptedReason.UNKNOWN_MODEL, ErrorCode.MODEL_MISSING),
}

Key = tuple[str, str]


@dataclass
class _Pending:
    """Something to be said, and when to say it (again)."""

    announcement: Announcement
    due: float
    asked: bool


class Announcer:
    """For one event loop."""

    def __init__(
        self,
        sink: AnnouncementSink,
        look: Callable[[str], None],
        default_model: Callable[[str], str | None] = lambda provider: None,
    ) -> None:
        """``look`` has a RenderJob looked at, by its name; ``default_model`` gives the id by provider."""
        self._sink = sink
        self._look = look
        self._default_model = default_model
        self._pending: dict[Key, _Pending] = {}
        self._answered: dict[str, set[str]] = {}
        self._reasons: dict[str, str] = {}
        self._versions: dict[str, str] = {}
        self._known: dict[str, JobDeleted] = {}
        self._refused: dict[str, Refusal] = {}
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        """What was not answered yet."""
        return len(self._pending)

    def tell(self, rj: RenderJob) -> None:
        """Note what ingest has to hear of this state."""
        uid, now = rj.metadata.uid, datetime.now(UTC)
        if self._versions.get(uid) == rj.metadata.resource_version:
            return
        self._versions[uid] = rj.metadata.resource_version
        terminal = rj.status.phase is not None and rj.status.phase.terminal
        if terminal:
            self._known.pop(uid, None)  # its end is told; that it is removed later is no news
        elif uid not in self._known:
            self._known[uid] = announcing.deleted(rj, now)
        fresh = rj.status.phase is None
        for announcement in announcing.wanted(rj, now, self._default_model(rj.spec.provider)):
            self._note(announcement, asked=fresh)

    def deleted(self, uid: str) -> None:
        """The RenderJob of that uid is gone."""
        announcement = self._known.pop(uid, None)
        if announcement is not None:
            self._note(announcement, asked=True)

    def known(self) -> set[str]:
        """The uids of which something is held."""
        return set[str]().union(self._known, *self._held())

    def forget(self, uids: Iterable[str]) -> None:
        """These are gone; an object whose deletion nobody saw is told of now."""
        for uid in uids:
            self.deleted(uid)
            for held in self._held():
                held.pop(uid, None)

    def _held(self) -> tuple[dict[str, Any], ...]:
        return (self._answered, self._reasons, self._refused, self._versions)

    def refusal(self, uid: str) -> Refusal | None:
        """Why ingest will not take the job."""
        return self._refused.get(uid)

    async def run(self) -> None:
        """Until canceled."""
        while True:
            if not self._pending:
                self._wake.clear()
                await self._wake.wait()
            try:
                await self._ask()
                await self._say()
            except TransportUnavailable as error:
                log.warning("announcements wait", cause=str(error), waiting=len(self._pending))
                await asyncio.sleep(_REST_SECONDS)
            await asyncio.sleep(_TICK_SECONDS)

    def _note(self, announcement: Announcement, *, asked: bool) -> None:
        uid, type_ = announcement.uid, announcement.type
        if isinstance(announcement, JobWaiting):
            if self._reasons.get(uid) == announcement.reason:
                return
            self._reasons[uid] = announcement.reason
        elif type_ in self._answered.get(uid, ()) or (uid, type_) in self._pending:
            return
        self._pending[uid, type_] = _Pending(announcement, time.monotonic(), asked)
        self._wake.set()

    async def _ask(self) -> None:
        """Look for answers; those to what another process said count as well."""
        open_ = [key for key, item in self._pending.items() if not isinstance(item.announcement, JobWaiting)]
        for some in _chunks(open_):
            answers = await asyncio.to_thread(self._sink.answers, some)
            for key, answer in answers.items():
                self._hear(key, answer)
            for key in some:
                if (item := self._pending.get(key)) is not None:
                    item.asked = True

    def _hear(self, key: Key, answer: Answer) -> None:
        item = self._pending.get(key)
        if item is None:
            return
        if answer.reception is Reception.UNKNOWN_JOB:
            self._register_again(key, item.announcement.name)
            return
        del self._pending[key]
        self._answered.setdefault(key[0], set()).add(key[1])
        if answer.reception.refused:
            reason, code = _REFUSALS[answer.reception]
            message = answer.message or f"The API refuses the job: {answer.reception.value}"
            self._refused[key[0]] = Refusal(reason, message, code)
            self._look(item.announcement.name)

    def _register_again(self, key: Key, name: str) -> None:
        """Ingest has no such job: what is said again counts once it is registered, if it is ours to register."""
        uid = key[0]
        answered = self._answered.get(uid, set())
        if _REGISTERED in answered:
            answered.discard(_REGISTERED)
            self._versions.pop(uid, None)
            self._look(name)  # it tells all of it
        elif (uid, _REGISTERED) not in self._pending:
            del self._pending[key]

    async def _say(self) -> None:
        now = time.monotonic()
        due = [(key, item) for key, item in self._pending.items() if item.asked and item.due <= now]
        for key, item in due:
            await asyncio.to_thread(self._sink.announce, item.announcement)
            item.due = now + _AGAIN_SECONDS
            if isinstance(item.announcement, JobWaiting):
                self._pending.pop(key, None)  # a line for people: said once


def _chunks(keys: list[Key]) -> Iterable[list[Key]]:
    for start in range(0, len(keys), _AT_ONCE):
        yield keys[start : start + _AT_ONCE]
