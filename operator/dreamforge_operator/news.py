"""Which events tell nothing new: those of versions that a look has taken into account already.

An operator hears of each of its own writes, and of everything that a look has just read, some milliseconds later.
Only that very version of an object is dropped; whatever is in doubt is looked at.
"""

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple


class Version(NamedTuple):
    """One state of one object."""

    uid: str
    version: str


class Looked(NamedTuple):
    """What a look took into account, and the seconds until the next one is due without an event."""

    versions: frozenset[Version] = frozenset()
    again_in: float | None = None


class _Known(NamedTuple):
    versions: frozenset[Version]
    due: float | None


class News:
    """By RenderJob: what was heard since its last look, and what that look saw."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: ``None``: somebody wants a look whatever the versions.
        self._heard: dict[str, set[Version] | None] = {}
        self._known: dict[str, _Known] = {}

    def hear(self, name: str, version: Version) -> None:
        """An object of this RenderJob has been seen."""
        heard = self._heard.setdefault(name, set())
        if heard is not None:
            heard.add(version)

    def insist(self, name: str) -> None:
        """A look is wanted in any case."""
        self._heard[name] = None

    def take(self, name: str) -> bool:
        """Whether a look is worth it; what was heard is taken note of."""
        heard = self._heard.pop(name, None)
        known = self._known.get(name)
        return heard is None or known is None or not heard <= known.versions

    def due_in(self, name: str) -> float | None:
        """Seconds until the look that the last one asked for."""
        known = self._known.get(name)
        return None if known is None or known.due is None else max(0.0, known.due - self._clock())

    def looked(self, name: str, look: Looked) -> None:
        """A look went well."""
        if not look.versions:
            self._known.pop(name, None)
            return
        due = None if look.again_in is None else self._clock() + look.again_in
        self._known[name] = _Known(look.versions, due)

    def failed(self, name: str) -> None:
        """A look failed: the next one is needed whatever comes."""
        self._known.pop(name, None)

    def keep(self, names: Iterable[str]) -> None:
        """Forget all others."""
        for name in self._known.keys() - set(names):
            del self._known[name]
