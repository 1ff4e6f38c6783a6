"""The projection, against a model of what any sequence of a runner's events must leave behind."""

import json
from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st

from dreamforge.events import AllocatorMemory, LogWritten, RunnerEvent
from dreamforge.jobs import ItemState, JobState
from dreamforge_api.worker.projection import JobView, Projector
from tests.jobs import NOW, Runner

COUNT = 4


def view() -> JobView:
    return JobView(JobState.QUEUED, COUNT, 30, last_seq=0, progress=0.0, completed=0)


def project(job: JobView, events: list[RunnerEvent], attempt: int = 1) -> Projector:
    projector = Projector(job, f"run-{attempt}", attempt, uuid4)
    projector.apply(events)
    return projector


_MOVES = st.lists(
    st.tuples(st.sampled_from(["item", "progress", "stored", "log"]), st.integers(0, COUNT - 1), st.integers(0, 30)),
    max_size=60,
)


def speak(runner: Runner, moves: list[tuple[str, int, int]]) -> list[RunnerEvent]:
    events: list[RunnerEvent] = [runner.started()]
    for kind, index, number in moves:
        if kind == "item":
            events.append(runner.item(index, number))
        elif kind == "progress":
            events.append(runner.progress(index, number))
        elif kind == "stored":
            events.append(runner.stored(index, number))
        else:
            runner.seq += 1
            events.append(LogWritten(seq=runner.seq, ts=NOW, level="info", code="x", message="y"))
    return events


@given(_MOVES, _MOVES)
def test_two_attempts_of_any_events(first: list[tuple[str, int, int]], second: list[tuple[str, int, int]]) -> None:
    job = view()
    seen: list[float] = []
    artifacts: list[int] = []
    seqs: list[int] = []
    for number, moves in enumerate((first, second), start=1):
        changes = project(job, speak(Runner(uuid4(), f"run-{number}"), moves), number).changes
        seqs += [row.seq for row in changes.rows]
        seen += [job.progress]
        artifacts += [artifact["item_index"] for artifact in changes.artifacts]
        assert len([row for row in changes.rows if row.type == "artifact"]) == len(changes.artifacts)
        numbered = [row.producer_seq for row in changes.rows if row.producer_seq is not None]
        assert numbered == sorted(set(numbered))
    assert seqs == list(range(1, job.last_seq + 1))
    assert len(artifacts) == len(set(artifacts)) == job.completed
    assert seen == sorted(seen)
    assert 0 <= job.progress <= 1
    done = {index for index, item in job.items.items() if item.status is ItemState.SUCCEEDED}
    assert done == set(artifacts) == {index for kind, index, _ in first + second if kind == "stored"}
    assert job.status is JobState.RUNNING


def test_an_item_without_progress_is_worth_nothing_and_a_stored_one_its_whole_share() -> None:
    job, runner = view(), Runner(uuid4())
    project(job, [runner.started(), runner.item(0), runner.stored(0)])
    assert job.progress == 1 / COUNT
    project(job, [runner.item(1)])
    assert job.progress == 1 / COUNT


def test_progress_of_a_later_attempt_never_takes_the_job_back() -> None:
    job = view()
    one, two = Runner(uuid4(), "run-1"), Runner(uuid4(), "run-2")
    project(job, [one.started(), one.item(0), one.progress(0, 29)])
    before = job.progress
    project(job, [two.started(), two.item(0), two.progress(0, 1)], attempt=2)
    assert job.progress == before
    assert job.items[0].attempt == 2


def test_the_public_events_of_a_start() -> None:
    job, runner = view(), Runner(uuid4())
    changes = project(job, [runner.started(), runner.item(2, 77)]).changes
    assert [(row.type, row.code) for row in changes.rows] == [
        ("state", "job.running"),
        ("log", "attempt.started"),
        ("progress", "item.progress"),
    ]
    assert job.items[2].seed == 77
    again = project(job, [Runner(uuid4()).started()], attempt=2).changes
    assert [row.type for row in again.rows] == ["log"]


def test_the_gpu_verdict_is_a_log_line_people_can_read() -> None:
    job, runner = view(), Runner(uuid4())
    measured = runner.gpu().model_copy(
        update={"source": "nvml", "start_mib": 10.0, "peak_mib": 90.0, "end_mib": 80.0, "clean": False}
    )
    row = project(job, [measured]).changes.rows[0]
    assert (row.code, row.level) == ("gpu.memory", "warning")
    assert "peak 90.0 MiB" in row.message
    assert "not clean" in row.message
    own = AllocatorMemory(
        allocated_start_mib=20,
        allocated_peak_mib=70,
        allocated_end_mib=21,
        reserved_peak_mib=75,
        reserved_end_mib=30,
    )
    row = project(job, [measured.model_copy(update={"allocator": own})]).changes.rows[0]
    assert row.message.endswith("the backend's peak 70 MiB allocated, 75 MiB reserved")
    assert json.loads(row.payload)["gpu"]["allocator"] == own.model_dump()
