"""One run at one file: range workers write and record, a hasher follows in order, a syncer makes progress lasting.

Threads, since all they do (receive, write, hash, sync) happens outside of the GIL. They share a ledger and a route;
whoever fails first stops the others, and what is there by then is noted for the next run.
"""

import os
import threading
import time
from collections.abc import Callable

import httpx

from dreamforge_cli.models.errors import IntegrityError, NetworkError, NotAllowed
from dreamforge_cli.models.fetch import answers, sidecar
from dreamforge_cli.models.fetch.answers import Changed, Known, TryAgain
from dreamforge_cli.models.fetch.hashing import InOrder
from dreamforge_cli.models.fetch.ledger import Ledger, Stopped
from dreamforge_cli.models.fetch.limits import MIB, Limits
from dreamforge_cli.models.fetch.part import Part
from dreamforge_cli.models.fetch.patience import PROGRESS_BYTES, Patience
from dreamforge_cli.models.fetch.sidecar import Progress, Sidecar
from dreamforge_cli.models.fetch.wire import Opened, Route, in_words

#: Bytes that are there, and bytes there will be (``None``: the server does not say).
OnProgress = Callable[[int, int | None], None]

_READ_BYTES = MIB
_SLOWEST_BYTES_A_SECOND = 1024
_TICK_SECONDS = 0.02
_SAVE_BYTES = MIB // 2
_SYNC_SECONDS = 0.2
_JOIN_SECONDS = 5.0
#: Not every system can leave out what only the time of the last change needs.
_sync_data: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


class Download:
    """Fetches what is missing of ``part``; ``ledger`` and ``hasher`` say what is there."""

    def __init__(
        self, part: Part, route: Route, known: Known, ledger: Ledger, hasher: InOrder, digest: str, limits: Limits
    ) -> None:
        self._part = part
        self._route = route
        self._known = known
        self._ledger = ledger
        self._hasher = hasher
        self._digest = digest
        self._limits = limits
        self._synced = self._progress()
        self._workers = 0
        self._lock = threading.Lock()

    def run(self, opened: Opened | None, workers: int, on_progress: OnProgress) -> None:
        """Until everything is there and hashed; raises what stopped it. ``opened`` is the first stretch's answer."""
        self._workers = workers
        jobs: list[Callable[[], None]] = [self._hash, self._sync]
        jobs += [lambda first=opened if n == 0 else None: self._work(first) for n in range(workers)]  # type: ignore[misc]
        threads = [threading.Thread(target=self._guarded, args=(job,), daemon=True) for job in jobs]
        for thread in threads:
            thread.start()
        try:
            self._watch(on_progress)
        finally:
            self._ledger.stop(Stopped())
            self._route.hang_up()
            for thread in threads:
                thread.join(_JOIN_SECONDS)
            self._save()
            if any(thread.is_alive() for thread in threads):
                self._part.leave_open()
        on_progress(self._ledger.there, self._ledger.size)

    def _guarded(self, job: Callable[[], None]) -> None:
        try:
            job()
        except Stopped:
            return
        except Exception as error:  # noqa: BLE001 - a thread's edge: the failure goes to the one who waits
            self._ledger.stop(error)

    # The one who waits

    def _watch(self, on_progress: OnProgress) -> None:
        ledger = self._ledger
        deadline = time.monotonic() + self._limits.seconds
        told, saved, saved_at = -1, ledger.there, time.monotonic()
        while not ledger.ended(_TICK_SECONDS):
            now = time.monotonic()
            if ledger.there != told:
                told = ledger.there
                on_progress(told, ledger.size)
            if ledger.there - saved >= _SAVE_BYTES or (ledger.there > saved and now - saved_at >= 1):
                saved, saved_at = ledger.there, now
                self._save()
            if now > deadline:
                raise NetworkError(
                    f"not done within {self._limits.seconds:.0f} seconds; another try goes on from here"
                )
        if ledger.failure is not None:
            raise ledger.failure

    def _save(self) -> None:
        if self._ledger.size is None:
            return  # Nothing to go on from: without a length there are no ranges.
        self._part.save(
            Sidecar(
                digest=self._digest,
                size=self._ledger.size,
                etag=self._known.etag,
                boot=sidecar.boot(),
                written=self._progress(),
                synced=self._synced,
            )
        )

    def _progress(self) -> Progress:
        at, state = self._hasher.mark()  # Before the ranges, so that they hold all that was hashed.
        return Progress(done=tuple(self._ledger.done()), hashed=at, hash_state=state)

    # Threads

    def _sync(self) -> None:
        while not self._ledger.ended(_SYNC_SECONDS):
            now = self._progress()
            _sync_data(self._part.fd)
            self._synced = now

    def _hash(self) -> None:
        while (due := self._ledger.due()) is not None:
            for data in due.data:
                self._hasher.update(data)
            left = due.in_file
            while left:
                data = os.pread(self._part.fd, min(left, _READ_BYTES), due.at + due.in_file - left)
                if not data:
                    raise Changed("bytes that an earlier run wrote are gone")
                self._hasher.update(data)
                left -= len(data)
                self._ledger.check()
            self._ledger.hashed(self._hasher.at)
        self._ledger.finish()

    def _work(self, opened: Opened | None) -> None:
        patience = Patience(self._limits)
        if opened is not None:
            if opened.body.whole:
                return self._whole(opened)
            if not self._carry((opened.body.start, opened.body.end or 0), opened, patience):
                return None
        while (stretch := self._ledger.take()) is not None:
            if not self._carry(stretch, None, patience):
                return None
        return None

    def _carry(self, stretch: tuple[int, int], opened: Opened | None, patience: Patience) -> bool:
        """Fetch a stretch, trying again where that may help; false when this worker gives it back and leaves."""
        at, end = stretch
        while at < end:
            cursor = Cursor(at)
            try:
                opened = opened or self._route.open((at, end), self._known)
                self._copy(opened, cursor)
            except TryAgain as failure:
                seconds = patience.pause(failure, cursor.at - at, self._ledger.received)
                at = cursor.at
                if patience.exhausted:
                    self._leave(failure, patience)
                    self._ledger.give_back((at, end))
                    return False
                self._ledger.pause(seconds)
            else:
                at = cursor.at
                patience.reward()
            opened = None
        self._ledger.give_back(None)
        return True

    def _leave(self, failure: TryAgain, patience: Patience) -> None:
        """Give up. When others had success meanwhile, the server may just not like so many: the others go on."""
        with self._lock:
            others = self._ledger.received - patience.since >= PROGRESS_BYTES and self._workers > 1
            self._workers -= 1
        if not others:
            raise NetworkError(f"{failure.reason}; given up after {self._limits.tries} tries")

    def _whole(self, opened: Opened) -> None:
        cursor = Cursor(0)
        try:
            self._copy(opened, cursor)
        except TryAgain as failure:
            raise Changed(f"{failure.reason}, and the server can't go on where it was") from None
        self._ledger.ends_at(cursor.at)
        self._ledger.give_back(None)

    def _copy(self, opened: Opened, cursor: "Cursor") -> None:
        """An answer's bytes into file and ledger; ``cursor`` says how far, whatever happens."""
        body, response = opened.body, opened.response
        end = body.end if body.end is not None else self._ledger.size
        cap = end if end is not None else self._limits.file_bytes
        try:
            for data in response.iter_raw():
                if cursor.at + len(data) > cap:
                    raise IntegrityError(f"more bytes come than the {cap} that were announced or are allowed")
                if cursor.at == 0 and answers.looks_like_a_page(data):
                    raise NotAllowed("a web page comes instead of the file: the source wants a login")
                self._ledger.check()
                self._part.write(data, cursor.at)
                self._ledger.record(cursor.at, data)
                cursor.advance(len(data), self._limits.stall_seconds)
        except httpx.TransportError as error:
            raise TryAgain(in_words(error)) from None
        finally:
            self._route.close(response)
        if end is not None and cursor.at < end:
            raise TryAgain(f"the connection ended {end - cursor.at} bytes early")


class Cursor:
    """Where one answer's bytes go, and whether they come fast enough to be worth waiting for."""

    def __init__(self, at: int) -> None:
        self.at = at
        self._mark = (at, time.monotonic())

    def advance(self, count: int, stall_seconds: float) -> None:
        self.at += count
        at, since = self._mark
        now = time.monotonic()
        if now - since < stall_seconds:
            return
        if self.at - at < stall_seconds * _SLOWEST_BYTES_A_SECOND:
            raise TryAgain(f"less than {_SLOWEST_BYTES_A_SECOND} bytes a second come")
        self._mark = (self.at, now)
