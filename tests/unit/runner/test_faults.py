"""What a dead child and an ending mean in the closed list."""

import signal
from pathlib import Path

import pytest

from dreamforge.errors import FACTS, ErrorCode, from_exit_code
from dreamforge.events import Outcome
from dreamforge_runner import faults


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "memory.events"
    path.write_text("low 0\noom 3\noom_kill 2\n")
    monkeypatch.setattr(faults, "_CGROUP_EVENTS", path)
    return path


def test_a_kill_for_memory_needs_evidence(cgroup: Path):
    before = faults.oom_kills()
    assert before == 2
    assert faults.of_dead_child(-signal.SIGKILL, 1, before).code is ErrorCode.PROVIDER_ERROR
    cgroup.write_text("oom_kill 3\n")
    error = faults.of_dead_child(-signal.SIGKILL, 1, before)
    assert (error.code, error.item_index) == (ErrorCode.HOST_OOM, 1)
    assert faults.of_dead_child(-signal.SIGSEGV, 1, before).code is ErrorCode.PROVIDER_ERROR


def test_without_a_cgroup_there_is_no_evidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(faults, "_CGROUP_EVENTS", tmp_path / "absent")
    assert faults.oom_kills() == 0


@pytest.mark.parametrize(("returncode", "told"), [(-11, "SIGSEGV"), (-250, "signal 250"), (7, "exit code 7")])
def test_the_message_names_how_it_ended(returncode: int, told: str):
    assert told in faults.of_dead_child(returncode, None, 0).message


@pytest.mark.parametrize("code", list(ErrorCode))
def test_no_failure_leaves_with_zero_and_each_says_its_class(code: ErrorCode):
    left_with = faults.exit_code(Outcome.FAILED, code)
    assert left_with != 0
    if FACTS[code].exit_code is not None:
        assert from_exit_code(left_with) is code


def test_the_other_endings():
    assert faults.exit_code(Outcome.SUCCEEDED, None) == 0
    assert {faults.exit_code(outcome, None) for outcome in (Outcome.CANCELED, Outcome.STOPPED, None)} == {30}
