"""The `dreamforge` command: one Typer application out of the commands of the other modules."""

import platform
from importlib.metadata import version as version_of
from typing import Annotated

import typer

from dreamforge_cli import console, dlq, jobs
from dreamforge_cli.demo import demo
from dreamforge_cli.doctor import doctor
from dreamforge_cli.model.app import app as model
from dreamforge_cli.up.command import up

app = typer.Typer(
    name="dreamforge",
    help="Render images as jobs: run the system on this machine, send it jobs, watch them, fetch the images.",
    epilog="Exit status: 0 done, 1 the job failed, 2 wrong usage, 3 the server can't be reached. "
    "DF_API_BASE names the server (http://127.0.0.1:8001).",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    add_completion=False,
)
app.command()(up)
app.command()(demo)
app.add_typer(jobs.app, name="jobs")
app.add_typer(model, name="model")
app.add_typer(dlq.app, name="dlq")
app.command()(doctor)


@app.command()
def version(json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False) -> None:
    """Print the version."""
    found = {"dreamforge": version_of("dreamforge"), "python": platform.python_version()}
    if json:
        console.as_json(found)
    else:
        console.results.print(f"dreamforge {found['dreamforge']} (Python {found['python']})")


def main() -> None:
    """Entry point."""
    app()
