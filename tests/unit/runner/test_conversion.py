"""Converted files come to their place in one piece, whenever the command dies."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dreamforge.checkpoints import digest
from dreamforge.errors import ErrorCode, JobError
from dreamforge_runner import convert
from dreamforge_runner.backends.sdxl import conversion
from dreamforge_runner.backends.sdxl.plan import Number
from tests.contract.project import ROOT
from tests.converted_on_disk import install_converted
from tests.models_on_disk import install


def test_a_death_at_any_step_leaves_a_model_that_is_whole_and_can_be_converted(tmp_path: Path):
    program = [sys.executable, "-m", "tests.unit.runner.killed_conversion", str(tmp_path)]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    for name, states in json.loads(done.stdout).items():
        *deaths, whole = states
        assert len(deaths) > 20
        assert {death["status"] for death in deaths} == {9}
        assert whole["status"] == 0
        for step, state in enumerate(states, 1):
            where = (name, step, state)
            # Whatever the descriptor tells of is there, and without converted files the checkpoint is.
            assert state["problem"] is state["why_not"] is None, where
            assert state["original_there"] or not state["original_kept"], where
            after = state["after"]
            assert (after["problem"], after["why_not"], after["dtype"]) == (None, None, "bfloat16"), where
            assert (after["original_there"], after["room"]) == (False, False), where
        if name == "fresh":
            assert {state["dtype"] for state in states} == {None, "bfloat16"}


def test_files_are_read_only_and_their_hashes_remembered(tmp_path: Path):
    model = install_converted(tmp_path)
    assert model.conversion is not None
    for file in model.conversion.files:
        path = tmp_path / model.folder / file.path
        assert os.stat(path).st_mode & 0o777 == 0o444
        assert digest.remembered(path, digest.memory_of(tmp_path)) == file.sha256


def test_the_same_once_more_is_nothing_to_do(tmp_path: Path):
    model = install_converted(tmp_path, Number.BFLOAT16)
    folder = tmp_path / model.folder
    assert conversion.convert(folder) == (model, True)
    dropped, already = conversion.convert(folder, keep_original=False)
    assert (dropped.original_kept, already) == (False, False)
    assert not (folder / model.checkpoint.path).exists()
    assert conversion.convert(folder) == (dropped, True)


def refused(folder: Path, kind: Number | None = None) -> JobError:
    with pytest.raises(JobError) as caught:
        conversion.convert(folder, kind)
    return caught.value


def test_without_the_checkpoint_there_is_no_other_conversion(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model = install_converted(tmp_path, keep_original=False)
    folder = tmp_path / model.folder
    error = refused(folder, Number.BFLOAT16)
    assert (error.code, "was not kept" in error.message) == (ErrorCode.MODEL_MISSING, True)
    assert convert.run(folder, Number.BFLOAT16, keep_original=True) == 11
    assert "was not kept" in capsys.readouterr().err


def test_a_damaged_conversion_is_not_what_a_checkpoint_is_given_up_for(tmp_path: Path):
    model = install_converted(tmp_path)
    assert model.conversion is not None
    path = tmp_path / model.folder / model.conversion.files[0].path
    before = path.stat()
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(JobError):  # it converts anew, and no checkpoint of these tests can be
        conversion.convert(tmp_path / model.folder, keep_original=False)
    assert (tmp_path / model.folder / model.checkpoint.path).is_file()


def test_only_the_folder_of_an_installed_model_will_do(tmp_path: Path):
    model = install_converted(tmp_path / "models")
    assert refused(tmp_path / "absent").code is ErrorCode.MODEL_MISSING
    assert "name the folder" in refused(tmp_path / "models").message
    moved = tmp_path / "models" / "moved"
    (tmp_path / "models" / model.folder).rename(moved)
    assert refused(moved).code is ErrorCode.MODEL_INVALID


def test_without_the_libraries_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "dreamforge_runner.backends.sdxl.engine", None)
    model = install(tmp_path)
    assert convert.run(tmp_path / model.folder, None, keep_original=True) == 21
    assert "dreamforge[sdxl]" in capsys.readouterr().err


def test_a_disk_that_refuses_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model = install_converted(tmp_path)
    staging = tmp_path / ".staging"
    staging.write_bytes(b"")  # where its lock would be
    assert convert.run(tmp_path / model.folder, None, keep_original=True) == 1
    assert str(staging) in capsys.readouterr().err
