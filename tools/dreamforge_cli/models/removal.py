"""Taking a model away: out of the registry and off the disk, in the order that leaves no job without its model."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from dreamforge.models_root import Found
from dreamforge_cli.models.errors import BadReference, NotAllowed
from dreamforge_cli.models.staging import Staging


class Registry(Protocol):
    """The registry as removal needs it."""

    def without(self, model_id: str, detail: str) -> AbstractContextManager[bool]: ...
    def __enter__(self) -> "Registry": ...
    def __exit__(self, *error: object) -> None: ...


def only(found: Sequence[Found]) -> Found:
    """One model; raises :class:`BadReference` when a slug means several versions."""
    if len(found) > 1:
        raise BadReference(f"several versions are installed: {', '.join(one.folder.name for one in found)}; name one")
    return found[0]


def remove(root: Path, one: Found, registry: Registry | None) -> None:
    """Take the model away; raises :class:`NotAllowed` while jobs use it or another command has it in hand."""
    staging = Staging(root, one.folder.relative_to(root).as_posix())

    def busy() -> None:
        raise NotAllowed(f"{one.folder.name}: another command has it in hand; wait for that to end")

    with staging.held(busy):
        if registry is None:
            staging.remove()
            return
        with registry as opened, opened.without(one.folder.name, "dreamforge model remove"):
            staging.remove()
