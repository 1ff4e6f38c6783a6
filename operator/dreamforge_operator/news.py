"""Which events tell nothing new: those of versions that a look has taken into account already.

An operator hears of each of its own writes, and of everything that a look has just read, some milliseconds later.
Only that very version of an object is dropped; whatever is in doubt is looked at. That a child is on its way can wait
for a look that is due soon anyway.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

#: A look that is due so soon is worth waiting for.
SOON_SECONDS = 11.0


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


@dataclass
class _Heard:
    versions: set[Version] = field(default_factory=set)
    on_its_way: bool = False
    insisted: bool = False


class News:
    """By RenderJob: what was heard since its last look, and what that look saw."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heard: dict[str, _Heard] = {}
        self._known: dict[str, _Known] = {}

    def hear(self, name: str, version: Version, *, on_its_way: bool = False) -> None:
        """An object of this RenderJob has been seen; ``on_its_way``: it says only that it is not there yet."""
        heard = self._heard.setdefault(name, _Heard())
        if on_its_way:
            heard.on_its_way = True
        else:
            heard.versions.add(version)

    def insist(self, name: str) -> None:
        """A look is wanted in any case."""
        self._heard.setdefault(name, _Heard()).insisted = True

    def take(self, name: str) -> bool:
        """Whether a look is worth it; what was heard is taken note of."""
        heard, known = self._heard.pop(name, None), self._known.get(name)
        if heard is None or known is None or heard.insisted or not heard.versions <= known.versions:
            return True
        due_in = self.due_in(name)
        return heard.on_its_way and (due_in is None or due_in > SOON_SECONDS)

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

    def assume(self, looks: Mapping[str, Looked]) -> None:
        """What a full pass saw counts as a look where there was none: a restart need not look at everything."""
        for name, look in looks.items():
            if name not in self._known:
                self.looked(name, look)

    def failed(self, name: str) -> None:
        """A look failed: the next one is needed whatever comes."""
        self._known.pop(name, None)
        self.insist(name)

    def keep(self, names: Iterable[str]) -> None:
        """Forget all others."""
        for name in self._known.keys() - set(names):
            del self._known[name]
