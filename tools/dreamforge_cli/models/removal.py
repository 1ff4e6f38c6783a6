"""Taking a model away: out of the registry and off the disk, in the order that leaves no job without its model."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Protocol

from dreamforge.models_root import Found
from dreamforge_cli.models.errors import BadReference, NotAllowed
from dreamforge_cli.models.staging import Staging, unfinished


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
    with staging.held(partial(_busy, one.folder.name)):
        if registry is None:
            staging.remove()
            return
        with registry as opened, opened.without(one.folder.name, "dreamforge model remove"):
            staging.remove()


def forget(model_id: str, registry: Registry) -> bool:
    """Take a model whose files are gone out of the registry; whether it was there."""
    with registry as opened, opened.without(model_id, "dreamforge model remove: its files were gone") as was_there:
        return was_there


def discard(root: Path, model_id: str) -> list[str]:
    """Throw away what an interrupted command left of a model (an id, or a slug for all its versions); the ids."""
    meant = [
        path for path in unfinished(root) if model_id in (name := path.rpartition("/")[2], name.partition("@")[0])
    ]
    for path in meant:
        staging = Staging(root, path)
        with staging.held(partial(_busy, path.rpartition("/")[2])):
            staging.discard()
    return [path.rpartition("/")[2] for path in meant]


def _busy(model_id: str) -> None:
    raise NotAllowed(f"{model_id}: another command has it in hand; wait for that to end")
