"""One attempt at a shard: a single-threaded actor that turns messages into events.

Everything that happens to an attempt (the child speaks, an image is stored, somebody cancels) arrives in one
queue, so nothing here needs a lock. How it may end is in :mod:`~dreamforge_runner.ending`; what becomes of the child
afterwards is the supervisor's business.
"""

import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dreamforge import receipt, telemetry
from dreamforge.checkpoints import place
from dreamforge.crashpoints import CrashPoint, reach
from dreamforge.errors import ErrorCode, JobError
from dreamforge.events import ArtifactStored, ItemStarted, Level, Outcome, Stage
from dreamforge.spec import RenderSpec
from dreamforge.storage.base import Storage, StorageError
from dreamforge_runner import faults, planning, wire
from dreamforge_runner.backends.base import Pixels
from dreamforge_runner.ending import Halt, Halted
from dreamforge_runner.outbox import Outbox
from dreamforge_runner.planning import StoredItem
from dreamforge_runner.process import ChildGone, ChildProcess
from dreamforge_runner.storing import NotStored, Rendered, Stored, Storer, Superseded

log = telemetry.logger(__name__)

_TICK_SECONDS = 0.25


Inbox = queue.SimpleQueue[wire.Message | ChildGone | Stored | NotStored | Halt]


@dataclass
class _Doing:
    """An item between its start and its storing."""

    seed: int
    started: float
    #: Items that share the time it takes.
    together: int = 1
    where: str = "denoising"


class Attempt:
    """Renders what is missing of one shard with one child."""

    def __init__(
        self,
        spec: RenderSpec,
        outbox: Outbox,
        inbox: Inbox,
        storage: Storage,
        *,
        load_timeout: float,
        models_root: Path | None,
        target: str,
        on_ready: Callable[[bool], object],
        ours: Callable[[], bool],
    ) -> None:
        self.spec = spec
        self.outbox = outbox
        self.inbox = inbox
        self._storage = storage
        self._storer = Storer(spec, storage, inbox.put, ours)
        self._load_timeout = load_timeout
        self._models_root = models_root
        self._target = target
        self._on_ready = on_ready
        self._child: ChildProcess | None = None
        self.child_busy = False
        self.stored: dict[int, StoredItem] = {}
        self._todo: list[int] = []
        self._doing: dict[int, _Doing] = {}
        self._denoising: set[int] = set()
        self._micro_batch = 1
        self._load_started: float | None = None
        self._job_ready = False
        self._backend, self._source_type = "", ""
        self._checkpoint_hash: str | None = None
        self._oom_kills_before = faults.oom_kills()
        #: An image came out of the child: what CUDA makes at first use is made.
        self.rendered = False
        self.memory: dict[str, Any] | None = None
        self.manifest_sha256: str | None = None

    @property
    def load_broke_off(self) -> bool:
        """The child was asked for the model and never had it ready: what it holds now is not known."""
        return self._load_started is not None and not self._job_ready

    def find_work(self) -> bool:
        """Report what is stored already; True when something is left to render. Raises ``JobError``."""
        self.stored = self._find(self.spec)
        for item in self.stored.values():
            self._report(item)
        if self.stored:
            self.outbox.log("items.found", f"{len(self.stored)} images of earlier attempts are stored already")
        self._todo = planning.to_render(self.spec, self.stored)
        return bool(self._todo)

    def render(self, child: ChildProcess) -> None:
        """Render and store all that is missing. Raises ``JobError`` or ``Halted``."""
        self._child = child
        child.labels = {"job_id": str(self.spec.job_id), "correlation_id": self.spec.correlation_id}
        child.prompts.watch(filter(None, (self.spec.params.prompt, self.spec.params.negative_prompt)))
        self._begin(child)
        for indexes in planning.batches(self._todo, self._micro_batch):
            # While these are denoised, as many are decoded and stored: memory stays flat however long the job.
            self._pump_until(lambda: not self._denoising and len(self._doing) <= self._micro_batch)
            self._start_items(child, indexes)
        self._pump_until(lambda: not self._doing)
        child.send(wire.EndJob())
        self._pump_until(lambda: not self.child_busy)

    def finish(self) -> None:
        """Write the manifest when the step is whole: the shard that ends last finds it so (ADR 0016).

        Raises ``JobError`` or ``Halted``.
        """
        reach(CrashPoint.RUNNER_ITEMS_STORED)
        stored = self.stored if self.spec.shard.count == 1 else self._find(self.spec.whole)
        if len(stored) == self.spec.params.count:
            try:
                self.manifest_sha256 = self._storer.write_manifest(stored)
            except Superseded:
                raise Halted(Outcome.STOPPED) from None
        reach(CrashPoint.RUNNER_MANIFEST_WRITTEN)

    def _find(self, spec: RenderSpec) -> dict[int, StoredItem]:
        try:
            return planning.find_stored(spec, self._storage)
        except StorageError as error:
            raise JobError(ErrorCode.STORAGE_ERROR, "The object store could not be listed") from error

    def wind_down(self, patience: float) -> bool:
        """Ask the child to stop and wait for it; what was rendered by then is kept. True when it obeyed."""
        if self._child is not None and self.child_busy:
            self._child.send(wire.Cancel())
        deadline = time.monotonic() + patience
        while (self.child_busy or self._storing()) and time.monotonic() < deadline:
            try:
                self._handle(self.inbox.get(timeout=max(0.01, deadline - time.monotonic())))
            except (JobError, Halted, queue.Empty):
                continue
        self._storer.close()
        return not self.child_busy

    def _begin(self, child: ChildProcess) -> None:
        self._show(self._todo[0], Stage.LOADING)
        model = place.located(self.spec.model, self._models_root)
        self._load_started = time.monotonic()
        self.child_busy = True
        child.send(
            wire.StartJob(self._target, model.model_dump(mode="json"), self.spec.params.model_dump(mode="json"))
        )
        self._pump_until(lambda: self._job_ready)
        self._load_started = None

    def _start_items(self, child: ChildProcess, indexes: list[int]) -> None:
        """Draw the seeds of items that are rendered together, right before that."""
        seeds = [planning.draw_seed(self.spec, index) for index in indexes]
        for index, seed in zip(indexes, seeds, strict=True):
            self.outbox.emit(ItemStarted, item_index=index, item_seed=seed)
            reach(CrashPoint.RUNNER_ITEM_STARTED)
            self._doing[index] = _Doing(seed, time.monotonic(), len(indexes))
            self._show(index, Stage.DENOISING)
        self._denoising = set(indexes)
        child.send(wire.RenderItems(indexes, seeds))

    def _pump_until(self, done: Callable[[], bool]) -> None:
        while not done():
            try:
                message = self.inbox.get(timeout=_TICK_SECONDS)
            except queue.Empty:
                self._check_time()
                continue
            self._handle(message)
            self._check_time()

    def _handle(self, message: object) -> None:
        match message:
            case wire.StepDone(index, step):
                self._show(index, Stage.DENOISING, step)
            case wire.Denoised(index):
                self._denoising.discard(index)
                self._move(index, Stage.DECODING)
            case wire.ItemRendered(index):
                self._store(message)
            case Stored(item, seconds):
                self._on_stored(item, seconds)
            case NotStored(Superseded()):
                raise Halted(Outcome.STOPPED)
            case NotStored(JobError() as error):
                self._doing.pop(error.item_index if error.item_index is not None else -1, None)
                raise error
            case Halt(outcome):
                raise Halted(outcome)
            case wire.JobDone(memory):
                self.child_busy, self.memory = False, memory
            case wire.Failed():
                self.child_busy, self.memory = False, message.memory
                raise JobError(ErrorCode(message.code), message.message, item_index=message.item_index)
            case ChildGone(_, returncode):
                self.child_busy = False
                raise faults.of_dead_child(returncode, min(self._denoising, default=None), self._oom_kills_before)
            case _:
                self._handle_beginning(message)

    def _handle_beginning(self, message: object) -> None:
        match message:
            case wire.Prepared(_, _, _, seconds):
                log.info("backend imported", seconds=round(seconds, 2))
            case wire.Warmed(seconds):
                log.info("model is warm", seconds=round(seconds, 2))
            case wire.Noticed(code, text, level):
                self.outbox.log(code, text, level=Level(level))
            case wire.JobReady(backend, source_type, seconds, reused, checkpoint_hash, micro_batch):
                self._job_ready, self._backend, self._source_type = True, backend, source_type
                self._checkpoint_hash, self._micro_batch = checkpoint_hash, micro_batch
                self._on_ready(reused)
                name = self.spec.model.name
                if reused:
                    self.outbox.log("model.reused", f"{name} was loaded already")
                else:
                    self.outbox.log("model.loaded", f"Loaded {name} in {seconds:.1f} s")

    def _store(self, rendered: wire.ItemRendered) -> None:
        self.rendered = True
        doing = self._doing.get(rendered.item_index)
        if doing is None:
            return
        self._move(rendered.item_index, Stage.STORING)
        pixels = Pixels(rendered.width, rendered.height, rendered.rgb, rendered.plan)
        source = (self._backend, self._source_type, doing.started, self._checkpoint_hash)
        self._storer.submit(Rendered(rendered.item_index, doing.seed, pixels, *source))

    def _on_stored(self, item: StoredItem, seconds: float) -> None:
        self._doing.pop(item.item_index, None)
        self.stored[item.item_index] = item
        self._report(item)
        text = f"Stored image {item.item_index}: {item.size_bytes} bytes in {seconds:.2f} s"
        self.outbox.log("item.stored", text, item_index=item.item_index)

    def _report(self, item: StoredItem) -> None:
        spec = planning.with_checkpoint_hash(self.spec, item.checkpoint_hash)
        described = receipt.describe(spec, item.item_index, item.seed, item.backend, item.source_type, item.plan)
        self.outbox.emit(
            ArtifactStored,
            item_index=item.item_index,
            key=item.key,
            format=self.spec.params.format,
            width=item.width,
            height=item.height,
            item_seed=item.seed,
            size_bytes=item.size_bytes,
            sha256=item.sha256,
            metadata=described,
            seconds=item.seconds,
        )

    def _move(self, index: int, stage: Stage) -> None:
        if (doing := self._doing.get(index)) is not None:
            doing.where = stage.value
            self._show(index, stage, self.spec.params.steps)

    def _show(self, index: int, stage: Stage, step: int = 0) -> None:
        self.outbox.progress(index, stage, step, self.spec.params.steps)

    def _storing(self) -> bool:
        return any(doing.where == Stage.STORING.value for doing in self._doing.values())

    def _check_time(self) -> None:
        """The three bounds: the job's deadline, loading, and each item from its start to its storing."""
        limits, now = self.spec.limits, time.monotonic()
        if limits.deadline_at is not None and datetime.now(UTC) >= limits.deadline_at:
            raise JobError(ErrorCode.JOB_TIMEOUT, "The job's deadline passed")
        if self._load_started is not None and now - self._load_started > self._load_timeout:
            raise JobError(ErrorCode.ITEM_TIMEOUT, f"The model was not ready after {self._load_timeout:g} s")
        for index, doing in self._doing.items():
            bound = limits.item_timeout_seconds * doing.together
            if now - doing.started > bound:
                text = f"Item {index} was still {doing.where} after {bound:g} s"
                raise JobError(ErrorCode.ITEM_TIMEOUT, text, item_index=index)
