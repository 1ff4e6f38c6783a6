"""Before a job needs it: the render child imports its backend, loads the likely model, and tries it out.

``serve`` says that it is ready after this, so that a queue hands its jobs to runners that can begin at once. A child
that takes the place of a discarded one is warmed the same way, as soon as nothing else is to be done.
"""

import queue
import threading
import time
from typing import NamedTuple

from dreamforge import models_root, telemetry
from dreamforge.checkpoints import place
from dreamforge.errors import JobError
from dreamforge.models import ModelKind
from dreamforge.spec import ModelRef
from dreamforge_runner import wire
from dreamforge_runner.backends import registry
from dreamforge_runner.process import ChildGone, ChildProcess
from dreamforge_runner.settings import RunnerSettings

log = telemetry.logger(__name__)
_TICK_SECONDS = 0.2


class Likely(NamedTuple):
    """What the next job is likely to need: a backend, and its model if it has one."""

    target: str
    model: ModelRef | None


def guess(settings: RunnerSettings, newest: Likely | None = None) -> Likely:
    """What the newest job had, if it can still be had; before any job came, what settings name."""
    if newest is not None and newest.model is not None:
        try:
            return newest._replace(model=place.located(newest.model, settings.models_root))
        except JobError:
            return newest._replace(model=None)
    if settings.prewarm_sdxl:
        return Likely(registry.SDXL_TARGET, _checkpoint(settings))
    return Likely(registry.SKETCH_TARGET, None)


def _checkpoint(settings: RunnerSettings) -> ModelRef | None:
    """The one placed by hand, else the newest that is installed."""
    by_hand = settings.generate_model_path
    if by_hand is not None and by_hand.is_file():
        return _reference(str(by_hand))
    found = models_root.scan(settings.models_root) if settings.models_root is not None else ()
    models = [
        (one.model.verified_at, one.folder / one.model.checkpoint.path)
        for one in found
        if one.model and one.problem is None and one.model.kind is ModelKind.SDXL_CHECKPOINT
    ]
    return _reference(str(max(models)[1])) if models else None


def warm_up(child: ChildProcess, likely: Likely, seconds: float, stopping: threading.Event) -> None:
    """Return when a job could begin, after ``seconds`` in any case. What fails here is told, and once more by the
    first job that needs it."""
    target, model = likely
    heard: queue.SimpleQueue[wire.Message | ChildGone] = queue.SimpleQueue()
    child.attach(heard.put)
    child.send(wire.Prepare(target, model.model_dump(mode="json") if model else None))
    deadline = time.monotonic() + seconds
    try:
        while not stopping.is_set():
            if time.monotonic() > deadline:
                log.warning("not warm in time; taking work meanwhile", seconds=seconds)
                return
            try:
                message = heard.get(timeout=_TICK_SECONDS)
            except queue.Empty:
                continue
            if _ends(message, waiting_for_model=model is not None):
                return
    finally:
        child.attach(None)


def _ends(message: wire.Message | ChildGone, *, waiting_for_model: bool) -> bool:
    """Write down what the child says; True when there is no more to wait for."""
    match message:
        case wire.Prepared(_, _, _, seconds):
            log.info("backend imported", seconds=round(seconds, 2))
            return not waiting_for_model
        case wire.Warmed(seconds):
            log.info("model is warm", seconds=round(seconds, 2))
            return True
        case wire.Noticed(code, text):
            log.warning("while warming up", code=code, notice=text)
        case wire.Failed(code, text):
            log.warning("warming up failed; the first job says why", code=code, cause=text)
            return True
        case ChildGone(_, returncode):
            log.warning("render child ended while warming up", returncode=returncode)
            return True
    return False


def _reference(path: str) -> ModelRef:
    return ModelRef(id="warm-up", name="warm-up", kind=ModelKind.SDXL_CHECKPOINT.value, version="1", path=path)
