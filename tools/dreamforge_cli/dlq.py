"""`dreamforge dlq`: what failed for good and waits for a person. The parts behind it are loaded only when used."""

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from dreamforge.errors import ConfigurationError, Unavailable
from dreamforge.settings import load
from dreamforge_cli import console
from dreamforge_cli.exits import JOB_FAILED, SERVER_NOT_REACHABLE, WRONG_USAGE, stop
from dreamforge_cli.settings import DlqSettings
from dreamforge_cli.up.folder import DataFolder

NEEDS = ("sqlalchemy", "psycopg", "redis", "rq", "uuid_utils")
_DEFAULT_DATA = Path(".dreamforge")

app = typer.Typer(
    help="See and settle dead letters: batches of events that were refused for good, and jobs that kill their "
    "runner. Talks to PostgreSQL and Redis: those of --data DIR, else of DF_DATABASE_URL and DF_REDIS_URL, else of "
    "the `dreamforge up` on .dreamforge.",
    no_args_is_help=True,
)

LetterId = Annotated[str, typer.Argument(metavar="ID", help="Of a batch or a job, as `dlq list` shows it.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Folder of a running `dreamforge up`.", show_default=False),
]


@app.command("list")
def list_letters(data: Data = None, json: Json = False) -> None:
    """List dead letters: jobs first, then batches, newest first."""
    with _letters(data) as letters:
        found = letters.all()
    if json:
        console.as_json({"items": found})
        return
    columns = ("id", "kind", "failed_at", "job_id", "reason")
    console.table([name.upper() for name in columns], [[letter.get(name) for name in columns] for letter in found])


@app.command()
def show(letter_id: LetterId, data: Data = None, json: Json = False) -> None:
    """Show one dead letter, without what a prompt may stand in."""
    with _letters(data) as letters:
        found = _known(letter_id, letters.show(letter_id))
    if json:
        console.as_json(found)
        return
    attempts = found.pop("attempts", [])
    console.facts([(name.replace("_", " "), value) for name, value in found.items()])
    rows = [[a["number"], a["runner"], a["status"], a["error_code"], a["started_at"]] for a in attempts]
    if rows:
        console.table(["ATTEMPT", "RUNNER", "STATUS", "ERROR", "STARTED"], rows)


@app.command()
def requeue(
    letter_id: LetterId,
    data: Data = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for what becomes of a batch.")] = 10,
    json: Json = False,
) -> None:
    """Try again, once the cause is mended. Exit status 1 when a batch is refused again.

    A batch goes back on the queue. A job that has ended stays as it is: a new one gets its request and the label
    `requeued-from`.
    """
    with _letters(data) as letters:
        done = _known(letter_id, letters.requeue(letter_id, wait))
    if json:
        console.as_json(done)
    else:
        console.results.print(console.harmless(done["answer"]))
    if not done["ok"]:
        raise typer.Exit(JOB_FAILED)


@app.command()
def drop(letter_id: LetterId, data: Data = None, json: Json = False) -> None:
    """Give a dead letter up. A batch is gone then; a job stays, failed as it is, but is no dead letter any more."""
    with _letters(data) as letters:
        _known(letter_id, letters.drop(letter_id))
    if json:
        console.as_json({"id": letter_id, "dropped": True})
    else:
        console.results.print(f"{console.harmless(letter_id)} dropped")


@contextmanager
def _letters(data: Path | None) -> Iterator[Any]:
    absent = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if absent:
        stop(f"`dlq` needs more than is installed ({', '.join(absent)}): pip install 'dreamforge[api]'", WRONG_USAGE)
    deadletters = importlib.import_module("dreamforge_cli.deadletters")
    try:
        letters = deadletters.open_letters(*_servers(data))
    except ConfigurationError as error:
        stop(str(error), WRONG_USAGE)
    try:
        yield letters
    except Unavailable as error:
        stop(str(error), SERVER_NOT_REACHABLE)
    finally:
        letters.close()


def _servers(data: Path | None) -> tuple[str, str]:
    """URLs of PostgreSQL and Redis."""
    given = load(DlqSettings)
    if data is None and given.database_url and given.redis_url:
        return given.database_url, given.redis_url
    folder = DataFolder(data or _DEFAULT_DATA)
    kept = folder.servers()
    if kept is None:
        where = f"--data {folder.root}: no `dreamforge up` has run there"
        raise ConfigurationError(where if data else f"{where}; set DF_DATABASE_URL and DF_REDIS_URL, or --data")
    return kept


def _known(letter_id: str, found: Any) -> Any:
    if not found:
        stop(f"{console.harmless(letter_id)}: no such dead letter, or it is settled already", WRONG_USAGE)
    return found
