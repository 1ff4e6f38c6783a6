"""`dreamforge demo`: from nothing to images on disk in one command."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from dreamforge.errors import ConfigurationError
from dreamforge.jobs import JobState
from dreamforge.settings import load
from dreamforge_cli import console, images
from dreamforge_cli.embedded.launch import launch
from dreamforge_cli.exits import JOB_FAILED, SERVER_NOT_REACHABLE, WRONG_USAGE, stop
from dreamforge_cli.server import server
from dreamforge_cli.settings import DemoSettings
from dreamforge_cli.up.command import DataOption
from dreamforge_cli.watch import watch

_READY = "dreamforge ready: "
_STOP_SECONDS = 15


def demo(
    prompt: Annotated[str, typer.Argument(help="What to draw.")] = "an old-growth forest at dawn",
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the images go.")] = Path("out"),
    count: Annotated[int, typer.Option(min=1, max=100, help="Images to render.")] = 1,
    data: DataOption = Path(".dreamforge"),
) -> None:
    """Start the system, render, watch it live, save the images, stop.

    Prints path, seed and sha256 of each image. With DF_API_BASE set, that server is used and nothing is started.
    DF_RUNNER_BACKEND and DF_GENERATE_MODEL_PATH choose what renders, as for `dreamforge up`.
    """
    try:
        base = load(DemoSettings).api_base
    except ConfigurationError as error:
        stop(str(error), WRONG_USAGE)
    if base:
        _render(base, prompt, count, out)
        return
    with _own_stack(data) as started:
        _render(started, prompt, count, out)


def _render(base: str, prompt: str, count: int, out: Path) -> None:
    with server(base) as client:
        job = client.create({"type": "generate", "prompt": prompt, "count": count})
        for warning in job.get("warnings") or []:
            console.remarks.print(f"note: {console.harmless(warning)}")
        ended = watch(client, job)
        images.show(images.save_all(client, str(job["id"]), out))
    if ended["status"] != JobState.SUCCEEDED:
        error = ended.get("error") or {}
        stop(f"the job ended {ended['status']}: {console.harmless(error.get('message', ''))}", JOB_FAILED)


@contextmanager
def _own_stack(data: Path) -> Iterator[str]:
    """`dreamforge up` on a free port as a child of this process; its URL. Its remarks go to our stderr."""
    argv = [sys.executable, "-m", "dreamforge_cli", "up", "--data", str(data), "--port", "0"]
    command = launch(argv, death_signal=signal.SIGTERM)
    # A polite end of this process must take the `finally` below along.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # Its own session: Ctrl-C reaches this process alone, which then stops the stack in order.
    child = subprocess.Popen(command.argv, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        yield _url_of(child)
    finally:
        child.terminate()
        try:
            child.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if child.stdout:
            child.stdout.close()


def _url_of(child: "subprocess.Popen[str]") -> str:
    """Wait for the ready line; without one, end with the stack's own status: it has said why."""
    for line in child.stdout or ():
        if line.startswith(_READY):
            return line.removeprefix(_READY).strip()
    raise typer.Exit(child.wait() or SERVER_NOT_REACHABLE)
