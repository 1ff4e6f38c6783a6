"""``dreamforge model adopt`` as tests use it: whatever it needs lies on this machine."""

from pathlib import Path
from typing import NoReturn

from dreamforge.models_root import InstalledModel
from dreamforge_cli.models import adopt
from dreamforge_cli.models.adopt import Wishes
from dreamforge_cli.models.staging import Staging


def adopted(root: Path, path: Path, *, config: Path | None = None, copy: bool = False) -> InstalledModel:
    """The model that ``path`` has become; raises what the command would tell."""
    return adopt.adopt(root, path, Wishes(config=config, copy=copy), lambda _: None, _fetch).model


def _fetch(_: Staging) -> NoReturn:
    raise AssertionError("the network would be asked for a configuration")
