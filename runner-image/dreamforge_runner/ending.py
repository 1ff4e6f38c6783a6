"""How an attempt is asked to end, and how it ended."""

from dataclasses import dataclass

from dreamforge.events import Failure, Outcome


@dataclass(frozen=True, slots=True)
class Halt:
    """Somebody wants the attempt to end; ``outcome`` is ``None`` when nobody wants to hear of it (refused)."""

    outcome: Outcome | None


@dataclass(frozen=True)
class Ending:
    """How the work ended. ``outcome`` is ``None`` for a refused attempt."""

    outcome: Outcome | None
    failure: Failure | None = None


class Halted(Exception):
    """The attempt was asked to end."""

    def __init__(self, outcome: Outcome | None) -> None:
        super().__init__(outcome)
        self.outcome = outcome
