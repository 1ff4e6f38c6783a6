"""Rows of the whole runner: H4, H5, H7, H8. Supervisor, child, encoding, store and events are the real ones."""

import json
import os
import queue
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from benchmarks.gpu import model, timed_sdxl
from benchmarks.gpu.bench import Bench, Row, freed, timed
from benchmarks.gpu.engine_tables import Rig, _stream
from dreamforge.events import Outcome
from dreamforge.settings import load
from dreamforge.spec import ModelRef, RenderParams, RenderSpec
from dreamforge.storage.filesystem import FilesystemStore
from dreamforge.transport.memory import MemoryEventSink
from dreamforge_runner.outbox import Outbox
from dreamforge_runner.settings import RunnerSettings
from dreamforge_runner.spool import Header, Spool
from dreamforge_runner.supervisor import Supervisor

_ROOT = Path(__file__).resolve().parents[2]


class Shop:
    """One supervisor with its warm child."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        self.bench = bench
        self.files = model.files(bench.size, bench.where, bench.folder)
        self._folder = folder
        self.trace = folder / "trace.jsonl"
        plugins = {timed_sdxl.KIND: timed_sdxl.TARGET}
        self.supervisor = Supervisor(
            load(RunnerSettings, runner_plugins=plugins, redis_url=None), FilesystemStore(folder / "objects", None),
            keep_child=True,
        )  # fmt: skip

    def render(self, params: RenderParams) -> tuple[float, list[dict[str, Any]]]:
        """When the supervisor got the job (``time.monotonic()``), and the stopwatch's lines of its items."""
        self.trace.unlink(missing_ok=True)
        job = spec(self.files.checkpoint, params, timed_sdxl.KIND)
        outbox = Outbox(
            Spool.create(self._folder / f"spool-{job.job_id}", Header.of(job, "bench")), MemoryEventSink()
        )
        outbox.start()
        begun = time.monotonic()
        result = self.supervisor.run(job, outbox, queue.SimpleQueue())
        if result.outcome is not Outcome.SUCCEEDED:
            raise RuntimeError(f"the job ended {result.outcome}: {result.failure}")
        outbox.wait_drained(30)
        outbox.stop()
        return begun, [json.loads(line) for line in self.trace.read_text().splitlines()]


def spec(checkpoint: Path, params: RenderParams, kind: str) -> RenderSpec:
    ref = ModelRef(id="bench", name="bench", kind=kind, version="1", path=str(checkpoint))
    return RenderSpec(job_id=uuid4(), created_at=datetime.now(UTC), correlation_id="bench", params=params, model=ref)


def plan_environment(bench: Bench, folder: Path, compile_mode: str) -> dict[str, str]:
    """What a child's settings are; ``folder`` holds kernels, torch's own and ours."""
    return {
        "DF_SDXL_COMPILE": compile_mode,
        "DF_SDXL_BUCKETS": f"{bench.side}x{bench.side}",
        "DF_SDXL_COMPILE_CACHE_PATH": str(folder / "compiled"),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "TRITON_CACHE_DIR": str(folder / "triton"),
        "DF_HASH_CACHE_PATH": str(bench.folder / "hashes"),
    }


#: A smoke run's rows share one supervisor: each new child imports torch for half a minute on a busy machine.
_shared = ExitStack()
_open: list[Shop] = []


def close() -> None:
    """After the last table."""
    _shared.close()
    _open.clear()


@contextmanager
def shop(bench: Bench) -> Iterator[Shop]:
    """A supervisor with a warm child: each table's own, but in a smoke run."""
    if not bench.smoke:
        with opened(bench) as one:
            yield one
        return
    if not _open:
        _open.append(_shared.enter_context(opened(bench)))
    yield _open[0]


@contextmanager
def opened(bench: Bench) -> Iterator[Shop]:
    """A supervisor whose child has rendered once; its kernels are those that the rows beside it use."""
    folder = bench.folder / f"shop-{uuid4().hex[:8]}"
    folder.mkdir(parents=True)
    compile_mode = "off" if bench.smoke else "regional"
    extra = plan_environment(bench, bench.folder, compile_mode) | {"DF_BENCH_TRACE": str(folder / "trace.jsonl")}
    kept = dict(os.environ)
    os.environ.update(extra)  # the child inherits it
    one = Shop(bench, folder)
    try:
        one.render(bench.params(count=2))
        yield one
    finally:
        one.supervisor.close()
        os.environ.clear()
        os.environ.update(kept)
        shutil.rmtree(folder)


def h4(bench: Bench) -> Sequence[Row]:
    """100 items through the runner, with PNG, metadata, store and events; beside it a loop that keeps nothing."""
    row = Row("H4", "the runner, beside a loop that saves nothing", "s/item", 1.03, 1.01, goal_is_ratio=True)
    count = 3 if bench.smoke else 100
    until = time.monotonic() + bench.budget_seconds / 2
    with shop(bench) as one, freed():
        rig = Rig(bench, sdxl_compile="off" if bench.smoke else "regional")
        rig.begin(bench.params(count=count))
        _stream(rig, 1, 1)
        for _ in range(2):
            begun, lines = one.render(bench.params(count=count))
            ended = time.monotonic()
            # From the first item's start: what comes before it is H7's.
            row.ours.append((ended - lines[0]["entered"]) / count)
            row.bare.append(_stream(rig, 1, count) / count)
            row.notes.append(f"job of {count}: {ended - begun:.1f} s from claim to end")
            if time.monotonic() > until:
                break
        rig.engine.end()
    return [row]


def h5(bench: Bench) -> Sequence[Row]:
    """What the device waits for the runner between two items."""
    row = Row("H5", "GPU idle between items, p95", "ms", 20, 5)
    with shop(bench) as one:
        for _ in range(1 if bench.smoke else 3):
            _, lines = one.render(bench.params(count=4 if bench.smoke else 20))
            idle = [line["idle_ms"] for line in lines if "idle_ms" in line]
            row.ours.append(statistics.quantiles(idle, n=20)[-1] if len(idle) > 1 else idle[0])
    return [row]


def h7(bench: Bench) -> Sequence[Row]:
    """From the claim of a job on a warm runner to its first step: spool, reuse of the model, prompt encoding."""
    row = Row("H7", "warm: job claimed to first step queued", "ms", 100, 30)
    with shop(bench) as one:
        for _ in range(3 if bench.smoke else 20):
            begun, lines = one.render(bench.params(steps=2))
            row.ours.append((lines[0]["first_step"] - begun) * 1000)
    return [row]


def h8(bench: Bench) -> Sequence[Row]:
    """A process that starts for one image: with a cold compile cache, with a warm one."""
    cold = Row("H8c", "process start to stored image, compile cache cold", "s", 120, 60)
    warm = Row("H8w", "process start to stored image, compile cache warm", "s", 45, 25)
    files = model.files(bench.size, bench.where, bench.folder)
    kernels = bench.folder / f"kernels-{uuid4().hex[:8]}"
    mode = "off" if bench.smoke else "regional"
    if bench.smoke:
        cold.notes.append("smoke: nothing is compiled")
    try:
        for row in (cold, warm):
            # torch's own folders start empty each time: what a new pod finds is our file alone.
            for own in ("inductor", "triton"):
                shutil.rmtree(kernels / own, ignore_errors=True)
            row.ours.append(_one_process(bench, files.checkpoint, plan_environment(bench, kernels, mode)))
    finally:
        shutil.rmtree(kernels, ignore_errors=True)
    return [cold, warm]


def _one_process(bench: Bench, checkpoint: Path, plan: Mapping[str, str]) -> float:
    folder = bench.folder / f"once-{uuid4().hex[:8]}"
    folder.mkdir()
    job = spec(checkpoint, bench.params(), "sdxl-checkpoint")
    (folder / "spec.json").write_text(job.model_dump_json())
    store = {
        "DF_STORE": "filesystem",
        "DF_STORE_ROOT": str(folder / "objects"),
        "DF_SPOOL_DIR": str(folder / "spool"),
    }
    environment = {**os.environ, **plan, **store, "PYTHONPATH": str(_ROOT)}
    environment.pop("DF_REDIS_URL", None)

    def run() -> None:
        command = [sys.executable, "-m", "dreamforge_runner", "once", "spec.json"]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=bench.budget_seconds,
            check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"the runner ended {done.returncode}: {done.stderr[-2000:]}")

    try:
        return timed(bench, run)
    finally:
        shutil.rmtree(folder)
