"""Items rendered together: a real supervisor and child, with a plug-in that says how many it had at once."""

import queue
from collections.abc import Iterator
from pathlib import Path

import pytest

from dreamforge.events import ArtifactStored, ItemStarted, LogWritten, Outcome, RunnerEvent
from dreamforge.settings import load
from dreamforge.spec import RenderSpec
from dreamforge.storage.filesystem import FilesystemStore
from dreamforge.transport.memory import MemoryEventSink
from dreamforge_runner.outbox import Outbox
from dreamforge_runner.settings import RunnerSettings
from dreamforge_runner.spool import Header, Spool
from dreamforge_runner.supervisor import Supervisor
from tests.integration.runner_kit import make_spec


@pytest.fixture(scope="module")
def supervisor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisor]:
    plugins = {"batching": "tests.integration.batching_backend:BatchingBackend"}
    store = FilesystemStore(tmp_path_factory.mktemp("objects"), None)
    one = Supervisor(load(RunnerSettings, runner_plugins=plugins), store, keep_child=True)
    yield one
    one.close()


def events_of(supervisor: Supervisor, folder: Path, spec: RenderSpec) -> list[RunnerEvent]:
    sink = MemoryEventSink()
    outbox = Outbox(Spool.create(folder / "spool", Header.of(spec, "run-1")), sink)
    outbox.start()
    result = supervisor.run(spec, outbox, queue.SimpleQueue())
    assert result.outcome is Outcome.SUCCEEDED
    assert outbox.wait_drained(20)
    return list(sink.committed("run-1"))


def plans(events: list[RunnerEvent]) -> list[object]:
    stored = {event.item_index: event for event in events if isinstance(event, ArtifactStored)}
    return [stored[index].metadata["plan"] for index in sorted(stored)]


def logs(events: list[RunnerEvent]) -> list[str]:
    return [event.code for event in events if isinstance(event, LogWritten)]


def test_items_come_in_threes_and_the_last_alone(supervisor: Supervisor, tmp_path: Path):
    events = events_of(supervisor, tmp_path, make_spec(kind="batching", params={"count": 7}))
    assert plans(events) == ["together=3"] * 6 + ["together=1"]
    started = [event for event in events if isinstance(event, ItemStarted)]
    assert [event.item_index for event in started] == list(range(7))
    assert len({event.item_seed for event in started}) == 7


def test_what_is_too_much_together_is_rendered_one_by_one(supervisor: Supervisor, tmp_path: Path):
    events = events_of(supervisor, tmp_path, make_spec("crowded", kind="batching", params={"count": 7}))
    assert plans(events) == ["together=1"] * 7
    assert logs(events).count("gpu.one_by_one") == 1
    # The next job is asked together again.
    later = events_of(supervisor, tmp_path / "later", make_spec(kind="batching", params={"count": 3}))
    assert plans(later) == ["together=3"] * 3


def test_what_decoding_remarks_reaches_the_job(supervisor: Supervisor, tmp_path: Path):
    events = events_of(supervisor, tmp_path, make_spec("noticed", kind="batching", params={"count": 2}))
    assert logs(events).count("vae.overflow") == 2
