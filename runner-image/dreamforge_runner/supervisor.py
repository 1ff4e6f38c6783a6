"""Runs one attempt after the other and owns the render child between them.

It imports no backend and never torch: whatever a model does to its process, this one can still say how it ended,
measure the GPU, and start a fresh child for the next job.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from dreamforge import telemetry
from dreamforge.errors import ErrorCode, JobError
from dreamforge.events import AllocatorMemory, AttemptFinished, AttemptStarted, Failure, GpuMeasured, Level, Outcome
from dreamforge.spec import RenderSpec
from dreamforge.storage.base import Storage
from dreamforge_runner import faults, gpu, warming
from dreamforge_runner.attempt import Attempt, Inbox
from dreamforge_runner.backends import registry
from dreamforge_runner.ending import Ending, Halted
from dreamforge_runner.outbox import Outbox
from dreamforge_runner.process import ChildProcess
from dreamforge_runner.settings import RunnerSettings

log = telemetry.logger(__name__)


@dataclass(frozen=True)
class Result:
    """What an attempt came to."""

    outcome: Outcome | None
    exit_code: int
    items_done: int
    items_failed: int
    failure: Failure | None
    gpu: GpuMeasured | None
    #: Of the step's manifest, when this attempt was the one that wrote it.
    manifest_sha256: str | None = None


class Supervisor:
    """One GPU's worth of rendering."""

    def __init__(
        self,
        settings: RunnerSettings,
        storage: Storage,
        *,
        keep_child: bool,
        open_gauge: Callable[[str | None], tuple[gpu.Gauge | None, str]] = gpu.open_gauge,
    ) -> None:
        self._settings = settings
        self._storage = storage
        self._keep_child = keep_child
        self._child: ChildProcess | None = None
        self._gauge, self._why_no_gauge = open_gauge(settings.visible_devices)
        self._bare_mib: float | None = None  # device memory in use before the child began
        self._newest: warming.Likely | None = None  # what the last job that got its model had
        self._worth_warming = True

    @property
    def child_pid(self) -> int | None:
        """The render child, when there is one."""
        return self._child.pid if self._child is not None else None

    def prewarm(self, stopping: threading.Event) -> None:
        """Have a child warm before a job asks for it, with the model of the last job that got one."""
        if not self._worth_warming or (self._child is not None and self._child.alive):
            return
        child = self._warm_child()
        likely = warming.guess(self._settings, self._newest)
        warming.warm_up(child, likely, self._settings.load_timeout_seconds, stopping)
        self._worth_warming = child.alive  # what killed it would kill the next; a job tries again, and tells

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def run(self, spec: RenderSpec, outbox: Outbox, inbox: Inbox, ours: Callable[[], bool] = lambda: True) -> Result:
        """Render a shard and say how it went; every exit path ends in the same three steps."""
        outbox.emit(AttemptStarted, backend=registry.name_of(spec.model.kind), runner=self._settings.name)
        if self._child is None or not self._child.alive:
            self._forget_child()
        watch = _Watch(gpu.Sampler(self._gauge) if self._gauge else None)
        attempt: Attempt | None = None
        try:
            attempt = self._attempt(spec, outbox, inbox, watch, ours)
            ending = self._work(attempt)
        except JobError as error:
            ending = _failed(error)
        self._worth_warming = True
        discarded = self._settle_child(attempt, ending)
        measured = self._measure(attempt, watch, outbox, discarded=discarded)
        return self._finish(outbox, ending, measured, attempt.manifest_sha256 if attempt is not None else None)

    def _attempt(
        self, spec: RenderSpec, outbox: Outbox, inbox: Inbox, watch: "_Watch", ours: Callable[[], bool]
    ) -> Attempt:
        target = registry.target_of(spec.model.kind, self._settings.runner_plugins)

        def on_ready(reused: bool) -> None:
            self._newest = warming.Likely(target, spec.model)
            if self._child is not None and not reused:
                self._child.resting_mib = None  # it holds something else now
            watch.loaded()

        return Attempt(
            spec,
            outbox,
            inbox,
            self._storage,
            load_timeout=self._settings.load_timeout_seconds,
            models_root=self._settings.models_root,
            target=target,
            on_ready=on_ready,
            ours=ours,
        )

    def _work(self, attempt: Attempt) -> Ending:
        try:
            if attempt.find_work():
                child = self._warm_child()
                child.attach(attempt.inbox.put)
                attempt.render(child)
            attempt.finish()
        except Halted as halted:
            return Ending(halted.outcome)
        except JobError as error:
            return _failed(error)
        except Exception as error:
            log.exception("attempt failed by a defect")
            return _failed(JobError(ErrorCode.INTERNAL, f"The runner raised {type(error).__name__}"))
        return Ending(Outcome.SUCCEEDED)

    def _warm_child(self) -> ChildProcess:
        if self._child is None or not self._child.alive:
            self._forget_child()
            self._bare_mib = self._gauge.read() if self._gauge else None
            self._child = ChildProcess(self._settings.visible_devices)
        return self._child

    def _forget_child(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None

    def _settle_child(self, attempt: Attempt | None, ending: Ending) -> bool:
        """Bring the child to rest, or end it. True when it was discarded."""
        patience = self._settings.cancel_grace_seconds
        child = self._child
        if attempt is None:
            return False
        distrusted = ending.failure is not None and ending.failure.code in faults.DISCARDING
        if child is None or distrusted:
            if child is not None:
                child.attach(None)
                child.kill(min(attempt.spec.limits.grace_seconds, 2 * patience))
                self._child = None
            attempt.child_busy = False
            attempt.wind_down(patience)
            return distrusted
        obeyed = attempt.wind_down(patience)
        child.attach(None)
        if not obeyed or not child.alive:
            child.kill(patience)
            self._child = None
            return True
        child.prompts.watch(())
        child.labels = {}
        if attempt.load_broke_off:
            child.resting_mib = None  # an earlier model may be gone, or a part of this one there
        if not self._keep_child:
            self.close()
        return False

    def _measure(self, attempt: Attempt | None, watch: "_Watch", outbox: Outbox, *, discarded: bool) -> GpuMeasured:
        sampler, child = watch.sampler, self._child
        if sampler is None:
            outbox.log("gpu.not_measured", f"GPU memory not measured: {self._why_no_gauge}")
            return emit_without_nvml(attempt, outbox, discarded=discarded)
        clean: bool | None = None
        end = sampler.look()
        if child is not None and end is not None:
            # A kept child holds its model: its own baseline is what it used at rest after the job before this.
            # The first job with a model has only "model loaded" to compare with, and CUDA still grows then.
            limit = watch.limit_of(child.resting_mib)
            end = sampler.settle(limit, 1.0)
            clean = end is not None and end <= limit
            if clean and attempt is not None and attempt.rendered:
                child.resting_mib = min(end or 0.0, child.resting_mib or float("inf"))
            elif not clean:
                outbox.log("gpu.not_clean", "GPU memory is not back; the child is discarded", level=Level.WARNING)
                child.kill(self._settings.cancel_grace_seconds)
                self._child, discarded = None, True
        if self._child is None and end is not None:
            bare = self._bare_mib if self._bare_mib is not None else sampler.start_mib
            limit = (bare if bare is not None else end) + gpu.TOLERANCE_MIB
            end = sampler.settle(limit)
            clean = end is not None and end <= limit
        sampler.stop()
        return outbox.emit(
            GpuMeasured,
            source="nvml",
            start_mib=sampler.start_mib,
            peak_mib=sampler.peak_mib,
            end_mib=end,
            clean=clean,
            child_discarded=discarded,
            allocator=attempt.memory if attempt else None,
        )

    def _finish(self, outbox: Outbox, ending: Ending, measured: GpuMeasured, manifest_sha256: str | None) -> Result:
        failure = ending.failure
        code = faults.exit_code(ending.outcome, failure.code if failure else None)
        done = outbox.stored
        if ending.outcome is not None:
            outbox.emit(AttemptFinished, outcome=ending.outcome, exit_code=code, items_done=done, failure=failure)
        log.info("attempt ended", outcome=ending.outcome, exit_code=code, items_done=done)
        failed = int(failure is not None and failure.item_index is not None)
        return Result(ending.outcome, code, done, failed, failure, measured, manifest_sha256)


class _Watch:
    """The attempt's GPU readings; ``sampler`` is ``None`` without NVML."""

    def __init__(self, sampler: gpu.Sampler | None) -> None:
        self.sampler = sampler
        self._loaded_mib: float | None = None

    def loaded(self) -> None:
        """The model is on the device."""
        if self.sampler is not None:
            self._loaded_mib = self.sampler.look()

    def limit_of(self, resting_mib: float | None) -> float:
        """Up to where a kept child counts as clean."""
        if resting_mib is not None:
            return resting_mib + gpu.TOLERANCE_MIB
        base = self._loaded_mib or (self.sampler.start_mib if self.sampler else None) or 0.0
        return base + gpu.TOLERANCE_MIB + gpu.FIRST_JOB_ALLOWANCE_MIB


def _failed(error: JobError) -> Ending:
    log.warning("attempt failed", code=error.code.value, cause=error.message, item_index=error.item_index)
    failure = Failure(code=error.code, message=error.message[:4000], item_index=error.item_index)
    return Ending(Outcome.FAILED, failure)


def emit_without_nvml(attempt: Attempt | None, outbox: Outbox, *, discarded: bool) -> GpuMeasured:
    """The backend's own view is better than none."""
    told = AllocatorMemory.model_validate(attempt.memory) if attempt and attempt.memory else None
    return outbox.emit(
        GpuMeasured,
        source="none" if told is None else "torch",
        start_mib=None,
        peak_mib=told.reserved_peak_mib if told else None,
        end_mib=told.reserved_end_mib if told else None,
        clean=None,
        child_discarded=discarded,
        allocator=told,
    )
