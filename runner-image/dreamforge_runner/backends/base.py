"""The backend port, spoken only inside the render child.

A job is ``begin`` - then for each item ``denoise`` on the main thread and ``decode`` on a helper thread while the
next item denoises - then ``end``. ``load`` runs when the model differs from the loaded one. Errors are
:class:`~dreamforge.errors.JobError` with a code of the closed list; a backend translates its library's
errors itself, so nothing above it knows torch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from dreamforge.errors import DreamForgeError
from dreamforge.events import AllocatorMemory, Level, Stage
from dreamforge.spec import ModelRef, RenderParams


class RenderCanceled(DreamForgeError):
    """The job's cancel was seen between two denoise steps."""


@dataclass(frozen=True)
class Item:
    """One image of a batch; ``seed`` was drawn right before."""

    index: int
    seed: int


@dataclass(frozen=True)
class Notice:
    """Something a person should read in the job's log; ``code`` is a stable word."""

    code: str
    message: str
    level: Level = Level.INFO


@dataclass(frozen=True)
class Pixels:
    """An 8-bit RGB image: ``rgb`` holds ``width * height * 3`` bytes, rows from the top."""

    width: int
    height: int
    rgb: bytes
    #: How it was rendered, in a word for its metadata, where a backend has more than one way.
    plan: str | None = None
    notice: Notice | None = None


#: Called with the number of denoise steps done; returns False when the item must stop (``RenderCanceled``).
OnStep = Callable[[int], bool]
#: Called when a slow phase begins, so that a reader sees why nothing moves.
OnStage = Callable[[Stage], None]


class Backend(Protocol):
    """What a render backend can do."""

    name: str
    #: IPTC digital source type of its pictures: ``trainedAlgorithmicMedia`` or ``algorithmicMedia``.
    digital_source_type: str

    def load(self, model: ModelRef) -> str | None:
        """Make ``model`` ready, dropping another one; the sha256 of its file (``None`` without one).

        Raises ``model_missing`` or ``model_invalid``.
        """
        ...

    def begin(self, params: RenderParams) -> Sequence[Notice]:
        """Prepare what all items of a job share (prompt embeddings, scheduler)."""
        ...

    def denoise(self, item: Item, on_step: OnStep) -> Any:
        """Everything up to latents; raises ``RenderCanceled``, or ``JobError`` (``gpu_oom``, ``gpu_fault``, ...)."""
        ...

    def decode(self, latents: Any) -> Pixels:
        """Latents to pixels; called on another thread while the next ``denoise`` runs."""
        ...

    def end(self) -> AllocatorMemory | None:
        """Free what the job used, keep the model; its device memory since ``begin``, if it has any."""
        ...


@runtime_checkable
class Batching(Protocol):
    """What a backend may also do: render some items of a job together, and make itself warm."""

    #: How many items it takes at once.
    micro_batch: int

    def denoise_many(self, items: Sequence[Item], on_step: OnStep) -> Sequence[Any]:
        """Latents of each item, in order, equal to those of ``denoise`` but for the last bits of a number.

        After ``gpu_oom`` the backend must be able to go on with fewer items at once.
        """
        ...

    def warm_up(self) -> Sequence[Notice]:
        """After ``load``: make the first job as quick as those that follow. Never raises."""
        ...
