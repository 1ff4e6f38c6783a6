"""Fetches one file: bytes from where they may come from, checked while they arrive, in their place when they fit."""

import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx

from dreamforge_cli.models.errors import DiskError, IntegrityError, ModelError, NetworkError, NotAllowed
from dreamforge_cli.models.fetch.answers import Changed, Known, TryAgain
from dreamforge_cli.models.fetch.download import Download, OnProgress
from dreamforge_cli.models.fetch.hashing import InOrder
from dreamforge_cli.models.fetch.ledger import Ledger
from dreamforge_cli.models.fetch.limits import MIB, Fetched, Limits
from dreamforge_cli.models.fetch.part import Part
from dreamforge_cli.models.fetch.patience import Patience
from dreamforge_cli.models.fetch.ranges import Ranges, Stretch
from dreamforge_cli.models.fetch.sidecar import Progress
from dreamforge_cli.models.fetch.wire import Opened, Route
from dreamforge_cli.models.sources.base import ResolvedFile

_READ_BYTES = 4 * MIB
#: A mirror whose machines disagree about the ETag would change for ever; from then on the hash alone decides.
_STARTS_WITH_ETAGS = 2


def fetch(
    file: ResolvedFile,
    destination: Path,
    client: httpx.Client,
    limits: Limits | None = None,
    on_progress: OnProgress | None = None,
) -> Fetched:
    """Bring ``file`` to ``destination``; returns once its bytes are verified and safe on the disk.

    ``client`` is one of ``guard.open_client``. What is on its way lies in ``DESTINATION.part`` and its sidecar; after
    a failure or a kill the next call goes on from there. Raises the errors of ``dreamforge_cli.models.errors``.
    """
    limits = limits or Limits()
    if not (file.sha256 or file.git_blob):
        raise IntegrityError(f"{file.path}: the source names no hash for it; what nobody vouches for is not fetched")
    part = Part(destination)
    try:
        if (there := _in_place(file, destination)) is not None:
            return there
        return _started_until_it_ends(_Start(file, part, client, limits, on_progress or _nobody))
    except ModelError as error:
        raise type(error)(f"{file.path}: {error}") from error
    except OSError as error:
        raise DiskError(f"{error.filename or destination}: {error.strerror}") from error


@dataclass(frozen=True)
class _Start:
    """What a download is started with, each time the file at the source turns out to be another one."""

    file: ResolvedFile
    part: Part
    client: httpx.Client
    limits: Limits
    on_progress: OnProgress


def _started_until_it_ends(start: _Start) -> Fetched:
    limits = start.limits
    for left in reversed(range(limits.tries)):
        try:
            with closing(start.part):
                return _run(start, etags=limits.tries - left <= _STARTS_WITH_ETAGS)
        except Changed as change:
            start.part.discard()
            if not left:
                raise NetworkError(f"{change}; given up after {limits.tries} starts") from None
            time.sleep(limits.pause_seconds)
    raise NetworkError("not tried at all: Limits.tries is 0")


def _run(start: _Start, *, etags: bool) -> Fetched:
    """One start: what an earlier run left, the first answer, then everything else."""
    file, part, limits = start.file, start.part, start.limits
    expected = f"sha256:{file.sha256}" if file.sha256 else f"git:{file.git_blob}"
    saved = part.load(expected, file.size_bytes)
    had = saved.trusted() if saved else Progress()
    known = Known(saved.size if saved else file.size_bytes, saved.etag if saved else None)
    route = Route(file, start.client, limits.stall_seconds)
    gaps = _gaps(had, known.size, limits)
    opened = _first_answer(route, gaps[0], known, limits) if gaps else None
    try:
        if opened is not None:
            known = Known(opened.body.total or known.size, (opened.body.etag or known.etag) if etags else None)
            had = Progress() if opened.body.whole else had
        _accept(file, known.size, limits)
        part.make_sure_of_space(known.size or 0, limits.spare_bytes)
        part.open(keep=had.done != ())
    except BaseException:
        if opened is not None:
            route.close(opened.response)
        raise
    gaps = [] if opened is not None and opened.body.whole else _gaps(had, known.size, limits)
    hasher = InOrder(known.size, git=file.git_blob is not None, at=had.hashed, state=had.hash_state)
    ledger = Ledger(known.size, Ranges(had.done), hasher.at, max(limits.window_bytes, limits.stretch_bytes))
    ledger.plan(gaps[1:], in_flight=1 if opened else 0)
    workers = max(1, min(limits.connections, len(gaps))) if opened else 0
    try:
        Download(part, route, known, ledger, hasher, expected, limits).run(opened, workers, start.on_progress)
        _verify(file, hasher)
    except BaseException as error:
        if isinstance(error, IntegrityError) or not ledger.there:
            part.discard()
        raise
    part.keep()
    return Fetched(hasher.at, hasher.sha256, ledger.received)


def _gaps(had: Progress, size: int | None, limits: Limits) -> list[Stretch]:
    """What to ask for; without a size the first answer is to tell it."""
    return [(0, limits.stretch_bytes)] if size is None else Ranges(had.done).missing(size, limits.stretch_bytes)


def _first_answer(route: Route, stretch: Stretch, known: Known, limits: Limits) -> Opened:
    patience = Patience(limits)
    while True:
        try:
            return route.open(stretch, known)
        except TryAgain as failure:
            seconds = patience.pause(failure, 0, 0)
            if patience.exhausted:
                raise NetworkError(f"{failure.reason}; given up after {limits.tries} tries") from None
            time.sleep(seconds)


def _accept(file: ResolvedFile, size: int | None, limits: Limits) -> None:
    if size is not None and size > limits.file_bytes:
        raise NotAllowed(f"{size} bytes are more than the {limits.file_bytes} that one file may have")
    if size is None and file.git_blob:
        raise IntegrityError("nobody says how long it is, and without that git's hash can't be checked")


def _verify(file: ResolvedFile, hasher: InOrder) -> None:
    """Every hash that the source named."""
    for wanted, got in ((file.sha256, hasher.sha256), (file.git_blob, hasher.git_blob)):
        if wanted and wanted.lower() != got:
            raise IntegrityError(f"its hash is {got}, the source vouches for {wanted.lower()}; what came is removed")


def _in_place(file: ResolvedFile, destination: Path) -> Fetched | None:
    """The file, if an earlier run brought it; one with other bytes is removed."""
    if destination.is_symlink() or not destination.is_file():
        return None
    size = destination.stat().st_size
    hasher = InOrder(size, git=file.git_blob is not None)
    with destination.open("rb") as there:
        while data := there.read(_READ_BYTES):
            hasher.update(data)
    try:
        _verify(file, hasher)
    except IntegrityError:
        destination.unlink()
        return None
    return Fetched(size, hasher.sha256)


def _nobody(_done: int, _total: int | None) -> None:
    """Progress that no one asked for."""
