"""The GPU verdict with a scripted gauge: the rest of the supervisor, the child included, is real."""

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from dreamforge.events import GpuMeasured
from dreamforge.settings import load
from dreamforge.spec import RenderSpec
from dreamforge.storage.filesystem import FilesystemStore
from dreamforge.transport.memory import MemoryEventSink
from dreamforge_runner import gpu
from dreamforge_runner.outbox import Outbox
from dreamforge_runner.settings import RunnerSettings
from dreamforge_runner.spool import Header, Spool
from dreamforge_runner.supervisor import Supervisor
from tests.integration.batching_backend import MEASURED
from tests.integration.runner_kit import make_spec


@dataclass
class Device:
    """A device whose use a test sets; a child that is gone holds nothing."""

    bare: float = 500.0
    held_by_child: float = 0.0
    supervisor: Supervisor | None = None

    def read(self) -> float:
        child = self.supervisor.child_pid if self.supervisor else None
        return self.bare + (self.held_by_child if child is not None else 0.0)


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture
def supervisor(tmp_path: Path, device: Device) -> Iterator[Supervisor]:
    one = Supervisor(
        load(
            RunnerSettings,
            fake_runner=True,
            runner_plugins={
                "batching": "tests.integration.batching_backend:BatchingBackend",
                "faulty": "tests.integration.faulty_backend:FaultyBackend",
            },
        ),
        FilesystemStore(tmp_path / "objects", None),
        keep_child=True,
        open_gauge=lambda _: (gpu.Gauge(device.read), ""),
    )
    device.supervisor = one
    yield one
    one.close()


def measure(supervisor: Supervisor, tmp_path: Path, spec: RenderSpec) -> GpuMeasured:
    sink = MemoryEventSink()
    outbox = Outbox(Spool.create(tmp_path / "spool", Header.of(spec, "run-1")), sink)
    result = supervisor.run(spec, outbox, queue.SimpleQueue())
    outbox.start()
    assert outbox.wait_drained(20)
    (told,) = [event for event in sink.committed("run-1") if isinstance(event, GpuMeasured)]
    assert result.gpu == told
    return told


def sketch() -> RenderSpec:
    return make_spec("a castle", kind="sketch")


def test_a_child_that_rests_where_it_did_before_is_kept(supervisor: Supervisor, device: Device, tmp_path: Path):
    device.held_by_child = 7000
    first = measure(supervisor, tmp_path, sketch())
    pid = supervisor.child_pid
    device.held_by_child = 7000 + gpu.TOLERANCE_MIB
    second = measure(supervisor, tmp_path, sketch())
    assert (first.source, first.start_mib, first.end_mib, first.clean) == ("nvml", 500, 7500, True)
    assert (second.start_mib, second.clean, second.child_discarded) == (7564, True, False)
    assert supervisor.child_pid == pid


def test_a_child_that_keeps_more_than_before_is_discarded(supervisor: Supervisor, device: Device, tmp_path: Path):
    device.held_by_child = 7000
    measure(supervisor, tmp_path, sketch())
    device.held_by_child = 7000 + gpu.TOLERANCE_MIB + 1
    told = measure(supervisor, tmp_path, sketch())
    assert (told.child_discarded, told.clean, told.end_mib) == (True, True, 500)
    assert told.peak_mib == 7565
    assert supervisor.child_pid is None


def test_memory_that_does_not_come_back_is_told(
    supervisor: Supervisor, device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(gpu.Sampler.settle, "__defaults__", (0.3,))
    device.held_by_child = 7000
    measure(supervisor, tmp_path, sketch())
    device.bare = 900
    told = measure(supervisor, tmp_path, sketch())
    assert (told.child_discarded, told.clean, told.end_mib) == (True, False, 900)


def test_a_job_that_never_got_a_child_is_measured_too(supervisor: Supervisor, device: Device, tmp_path: Path):
    device.held_by_child = 7000
    spec = sketch()
    broken = spec.model_copy(update={"model": spec.model.model_copy(update={"kind": "unknown"})})
    told = measure(supervisor, tmp_path, broken)
    assert (told.source, told.start_mib, told.clean) == ("nvml", 500, True)


def test_the_backends_own_figures_stand_beside_the_devices(supervisor: Supervisor, device: Device, tmp_path: Path):
    device.held_by_child = 7000
    told = measure(supervisor, tmp_path, make_spec("measured", kind="batching"))
    assert (told.source, told.end_mib) == ("nvml", 7500)
    assert told.allocator == MEASURED
    assert measure(supervisor, tmp_path / "silent", make_spec("fine", kind="batching")).allocator is None


def test_without_nvml_the_backends_figures_are_all_there_is(tmp_path: Path):
    plugins = {"batching": "tests.integration.batching_backend:BatchingBackend"}
    store = FilesystemStore(tmp_path / "objects", None)
    settings = load(RunnerSettings, fake_runner=True, runner_plugins=plugins)
    supervisor = Supervisor(settings, store, keep_child=True, open_gauge=lambda _: (None, "no NVML"))
    try:
        told = measure(supervisor, tmp_path, make_spec("measured", kind="batching"))
    finally:
        supervisor.close()
    assert (told.source, told.start_mib, told.peak_mib, told.end_mib) == ("torch", None, 9500, 7100)
    assert told.allocator == MEASURED


def test_a_model_that_a_warm_child_newly_holds_is_no_leak(supervisor: Supervisor, device: Device, tmp_path: Path):
    measure(supervisor, tmp_path, sketch())
    pid = supervisor.child_pid
    device.held_by_child = 7000
    told = measure(supervisor, tmp_path, make_spec("fine", kind="batching"))
    assert (told.end_mib, told.clean, told.child_discarded) == (7500, True, False)
    assert supervisor.child_pid == pid


@pytest.mark.parametrize("left", [300, 7600])
def test_a_load_that_fails_leaves_no_baseline(supervisor: Supervisor, device: Device, tmp_path: Path, left: int):
    """It may have made room for what it then could not load, and CUDA may have begun with it."""
    device.held_by_child = 7000
    measure(supervisor, tmp_path, make_spec("fine", kind="batching"))
    pid = supervisor.child_pid
    device.held_by_child = left
    failed = measure(supervisor, tmp_path, make_spec(kind="faulty", model_id="absent"))
    device.held_by_child = 7000
    told = measure(supervisor, tmp_path, make_spec("fine", kind="batching"))
    assert (failed.end_mib, failed.clean, told.end_mib, told.clean) == (500 + left, True, 7500, True)
    assert supervisor.child_pid == pid


def test_a_job_that_rendered_nothing_sets_no_baseline(supervisor: Supervisor, device: Device, tmp_path: Path):
    """What CUDA makes at first use is still to come then."""
    measure(supervisor, tmp_path, make_spec("fine", kind="batching"))
    supervisor.close()
    device.held_by_child = 7000
    supervisor.prewarm(threading.Event())
    pid = supervisor.child_pid
    measure(supervisor, tmp_path, make_spec(kind="unknown"))
    device.held_by_child = 7000 + gpu.FIRST_JOB_ALLOWANCE_MIB
    told = measure(supervisor, tmp_path, make_spec("fine", kind="batching"))
    assert (told.clean, told.child_discarded) == (True, False)
    assert pid is not None
    assert supervisor.child_pid == pid


def test_the_gpu_that_is_measured_is_the_one_that_renders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`.env` reaches this process's settings only; the child has to be told."""
    monkeypatch.chdir(tmp_path)
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".env").write_text("CUDA_VISIBLE_DEVICES=1\n")
    asked: list[str | None] = []

    def no_gauge(visible_devices: str | None) -> tuple[None, str]:
        asked.append(visible_devices)
        return None, "not asked here"

    supervisor = Supervisor(
        load(RunnerSettings, fake_runner=True),
        FilesystemStore(tmp_path / "objects", None),
        keep_child=True,
        open_gauge=no_gauge,
    )
    try:
        supervisor.prewarm(threading.Event())
        seen = psutil.Process(supervisor.child_pid).environ()
    finally:
        supervisor.close()
    assert asked == ["1"]
    assert (seen["CUDA_VISIBLE_DEVICES"], seen["CUDA_DEVICE_ORDER"]) == ("1", "PCI_BUS_ID")
