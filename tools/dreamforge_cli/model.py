"""`dreamforge model`: what can render, over the REST API."""

from typing import Annotated

import typer

from dreamforge_cli import console
from dreamforge_cli.server import server

app = typer.Typer(help="See which models are there.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `model list` two words even while it is the only command."""


@app.command("list")
def list_models(
    enabled: Annotated[bool | None, typer.Option("--enabled/--disabled", help="Only those.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """List the models the server knows, and whether their files are installed."""
    with server() as client:
        found = client.models(enabled=None if enabled is None else str(enabled).lower())
    if json:
        console.as_json({"items": found})
        return
    rows: list[list[object]] = [
        [m["id"], m["kind"], "yes" if m["installed"] else "no", "yes" if m["enabled"] else "no", m["name"]]
        for m in found
    ]
    console.table(["ID", "KIND", "INSTALLED", "ENABLED", "NAME"], rows)
