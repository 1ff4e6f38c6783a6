"""A person's terminal as the sink: one readable line per event, and every batch counts as safe once printed."""

import sys
from typing import TextIO

from dreamforge.events import (
    Ack,
    ArtifactStored,
    AttemptFinished,
    AttemptStarted,
    EventBatch,
    GpuMeasured,
    ItemProgressed,
    ItemStarted,
    LogWritten,
    RunnerEvent,
    Verdict,
    item_progress,
)


class StdoutEventSink:
    """Prints events; nobody else gets them."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._last: dict[str, int] = {}

    def send(self, batch: EventBatch) -> None:
        for event in batch.events:
            if event.seq > self._last.get(batch.attempt_id, 0):
                self._last[batch.attempt_id] = event.seq
                self._stream.write(f"{event.ts:%H:%M:%S} {describe(event)}\n")
        self._stream.flush()

    def ack(self, attempt_id: str) -> Ack | None:
        last = self._last.get(attempt_id)
        return None if last is None else Ack(attempt_id=attempt_id, seq=last, verdict=Verdict.COMMITTED)


def describe(event: RunnerEvent) -> str:
    """One line about an event. Control characters in messages are shown, not obeyed."""
    match event:
        case AttemptStarted():
            text = f"started on {event.runner} ({event.backend})"
        case ItemStarted():
            text = f"item {event.item_index}: seed {event.item_seed}"
        case ItemProgressed():
            share = item_progress(event.stage, event.step_index, event.steps_total)
            text = f"item {event.item_index}: {share:4.0%} {event.stage} {event.step_index}/{event.steps_total}"
        case ArtifactStored():
            text = f"item {event.item_index}: stored {event.key} ({event.size_bytes} bytes, sha256 {event.sha256})"
        case LogWritten():
            text = f"{event.level}: {event.message}"
        case GpuMeasured():
            text = _describe_gpu(event)
        case AttemptFinished():
            text = f"{event.outcome}, {event.items_done} stored, exit code {event.exit_code}"
            if event.failure is not None:
                text += f": {event.failure.code}: {event.failure.message}"
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _describe_gpu(event: GpuMeasured) -> str:
    if event.source == "none":
        return "GPU memory: not measured"
    figures = ", ".join(
        f"{name} {'?' if value is None else f'{value:.0f}'} MiB"
        for name, value in (("start", event.start_mib), ("peak", event.peak_mib), ("end", event.end_mib))
    )
    return f"GPU memory ({event.source}): {figures}"
