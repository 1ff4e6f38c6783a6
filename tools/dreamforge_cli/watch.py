"""Following a job live: rich bars at a terminal, plain lines elsewhere, NDJSON for programs."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

from dreamforge_cli.client import Client, Event
from dreamforge_cli.console import as_json_line, harmless, remarks

_LOUD = frozenset({"warning", "error"})


def watch(client: Client, job: dict[str, Any], *, json_lines: bool = False) -> dict[str, Any]:
    """Show a job's events until it has ended; the job as it is then."""
    job_id = str(job["id"])
    with _shown(job, json_lines=json_lines) as show:
        for event in client.events(job_id):
            show(event)
    return client.job(job_id)


@contextlib.contextmanager
def _shown(job: dict[str, Any], *, json_lines: bool) -> Iterator[Callable[[Event], None]]:
    if json_lines:
        yield lambda event: as_json_line({"event": event.type, **event.data})
    elif remarks.is_terminal:
        with _Bars(int(job["count"])) as bars:
            yield bars.show
    else:
        yield _line


def _line(event: Event) -> None:
    """What is worth a line in a log file: states, images, trouble; progress is not."""
    text = describe(event)
    if text:
        remarks.print(text)


def describe(event: Event) -> str | None:
    """One line about an event; ``None`` for what only a bar can show."""
    data = event.data
    match event.type:
        case "state":
            return f"job {data['status']}"
        case "artifact":
            return f"image {data['item_index']}: stored, seed {data['seed']}, {data['size_bytes']} bytes"
        case "error":
            where = "" if data.get("item_index") is None else f"image {data['item_index']}: "
            return f"error: {where}{harmless(data['code'])}: {harmless(data['message'])}"
        case "log" if data.get("level") in _LOUD:
            return f"{data['level']}: {harmless(data['message'])}"
    return None


class _Bars:
    """One bar for the whole job and one for each image at work; finished images leave a line."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[note]}", style="dim"),
            TimeElapsedColumn(),
            console=remarks,
            transient=True,
        )
        self._items: dict[int, TaskID] = {}
        self._whole = self._progress.add_task(f"0/{count} images", total=1.0, note="queued")
        self._done = 0

    def __enter__(self) -> "_Bars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, event: Event) -> None:
        data, index = event.data, event.data.get("item_index")
        text = describe(event)
        if text:
            self._progress.console.print(text)
        if event.type == "state":
            self._progress.update(self._whole, note=data["status"])
        elif event.type == "progress":
            self._progress.update(self._whole, completed=data["progress"])
            if index is not None:
                self._move(index, data)
        elif event.type == "artifact" and index is not None:
            self._finish(index)

    def _move(self, index: int, data: dict[str, Any]) -> None:
        if index not in self._items:
            self._items[index] = self._progress.add_task(f"image {index}", total=1.0, note="")
        steps = f"{data['step_index']}/{data['steps_total']}" if data.get("steps_total") else ""
        note = f"{data.get('stage', '')} {steps}".strip()
        self._progress.update(self._items[index], completed=data.get("item_progress") or 0.0, note=note)

    def _finish(self, index: int) -> None:
        self._done += 1
        if index in self._items:
            self._progress.remove_task(self._items.pop(index))
        self._progress.update(self._whole, description=f"{self._done}/{self._count} images")
