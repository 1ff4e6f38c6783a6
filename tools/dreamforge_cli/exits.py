"""Exit statuses, and the one way a command ends early."""

import sys
from typing import NoReturn

import typer

OK = 0
JOB_FAILED = 1
WRONG_USAGE = 2
SERVER_NOT_REACHABLE = 3


def stop(line: str, status: int) -> NoReturn:
    """Say on stderr why the command ends, and end it."""
    print(f"dreamforge: {line}", file=sys.stderr, flush=True)  # noqa: T201 - a person's terminal
    raise typer.Exit(status)
