"""The `dreamforge` command: one Typer application out of the commands of the other modules."""

import typer

from dreamforge_cli.up.command import up

app = typer.Typer(
    name="dreamforge",
    help="Render images as jobs: run the system on this machine, send it jobs, watch them, fetch the images.",
    epilog="Exit status: 0 done, 1 the job failed, 2 wrong usage, 3 the server can't be reached.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    add_completion=False,
)
app.command()(up)


def main() -> None:
    """Entry point."""
    app()
