"""The Typer application of `dreamforge model`."""

import typer

from dreamforge_cli.model.convert import convert
from dreamforge_cli.model.download import download
from dreamforge_cli.model.listing import list_models
from dreamforge_cli.model.upkeep import adopt, disable, enable, remove, verify

app = typer.Typer(
    help="Get models, see which are there, check them, take them away. docs/models.md walks through all of it.",
    no_args_is_help=True,
)
app.command()(download)
app.command("list")(list_models)
app.command()(verify)
app.command()(convert)
app.command()(remove)
app.command()(adopt)
app.command()(enable)
app.command()(disable)
