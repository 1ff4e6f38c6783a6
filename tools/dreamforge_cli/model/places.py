"""Where the model commands work: the models root, and the registry that belongs to it."""

import importlib
import importlib.util
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from dreamforge import models_root
from dreamforge.errors import ConfigurationError, JobError, Unavailable
from dreamforge.models import ModelDescriptor
from dreamforge.models_root import Found
from dreamforge_cli import console
from dreamforge_cli.exits import SERVER_NOT_REACHABLE, WRONG_USAGE, stop
from dreamforge_cli.models.disk import disk_error
from dreamforge_cli.models.errors import BadReference, IntegrityError, ModelError
from dreamforge_cli.models.settings import ModelSettings
from dreamforge_cli.up.folder import DataFolder

RootOption = Annotated[
    Path | None,
    typer.Option("--root", metavar="DIR", help="Folder of models; else DF_MODELS_ROOT, else DIR/models of --data."),
]
DataOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Folder of `dreamforge up`; .dreamforge unless told otherwise."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

ModelId = Annotated[str, typer.Argument(metavar="ID", help="As `model list` shows it; the part before @ is enough.")]

INTERRUPTED = 130
_NEEDS = ("sqlalchemy", "psycopg")
_DEFAULT_DATA = Path(".dreamforge")


@dataclass(frozen=True)
class Places:
    """``database_url`` is ``None`` when no registry is known, and ``why`` then says so."""

    root: Path
    database_url: str | None
    why: str = ""


def places(settings: ModelSettings, root: Path | None, data: Path | None) -> Places:
    """From the command line over the environment to what the latest `up` on the data folder used."""
    folder = DataFolder(data or _DEFAULT_DATA)
    its_root = folder.models_root() or folder.models
    chosen = (root or settings.models_root or its_root).expanduser().absolute()
    if data is None and settings.database_url:
        return Places(chosen, settings.database_url)
    servers = folder.servers()
    if servers is None:
        return Places(chosen, None, "no server has run here yet")
    if chosen != its_root:
        return Places(chosen, None, f"the server of {folder.root} looks for models in {its_root}")
    return Places(chosen, servers[0])


def open_registry(where: Places) -> Any:
    """The registry of an installation, as a context manager; raises ``Unavailable`` when there is none."""
    if where.database_url is None:
        raise Unavailable(where.why)
    if any(importlib.util.find_spec(name) is None for name in _NEEDS):
        raise Unavailable("the library for PostgreSQL is not installed here (pip install 'dreamforge[db]')")
    return importlib.import_module("dreamforge_cli.models.registration").Registry(where.database_url)


def register(where: Places, models: Iterable[ModelDescriptor]) -> str | None:
    """Write models into the registry; ``None`` when that is done, else why it is not."""
    try:
        with open_registry(where) as registry:
            for model in models:
                registry.put(model)
    except Unavailable as error:
        return str(error)
    return None


def named(root: Path, model_id: str) -> list[Found]:
    """The folders that an id or a slug means; raises :class:`BadReference` when none."""
    found = having(root, model_id)
    if not found:
        raise unknown(root, model_id)
    return found


def unknown(root: Path, model_id: str) -> BadReference:
    """What to say of an id that nothing has."""
    return BadReference(f"no model {model_id!r} in {root}; `dreamforge model list --root {root}` shows what is there")


def having(root: Path, model_id: str) -> list[Found]:
    """The folders that an id or a slug means, if any."""
    return [one for one in models_root.scan(root) if model_id in (one.folder.name, one.folder.name.partition("@")[0])]


@contextmanager
def edge(json: bool = False, kept: str = "") -> Iterator[None]:
    """Whatever goes wrong inside becomes a line and an exit status.

    With ``json``, a line of NDJSON on stdout too. ``kept`` is what to say after Ctrl-C.
    """
    try:
        yield
    except ModelError as error:
        _end(str(error), error.exit_code, json)
    except ConfigurationError as error:
        _end(str(error), WRONG_USAGE, json)
    except JobError as error:
        _end(str(error), IntegrityError.exit_code, json)
    except Unavailable as error:
        _end(str(error), SERVER_NOT_REACHABLE, json)
    except BrokenPipeError:
        raise  # who reads our output has gone, which is no trouble of a disk
    except OSError as error:
        full = disk_error(Path(str(error.filename or "the models root")), error)
        _end(str(full), full.exit_code, json)
    except KeyboardInterrupt:
        _end(f"stopped. {kept}".strip(), INTERRUPTED, json)


def _end(line: str, status: int, json: bool) -> None:
    if json:
        console.as_json_line({"event": "error", "message": line, "exit_status": status})
    stop(console.harmless(line), status)
