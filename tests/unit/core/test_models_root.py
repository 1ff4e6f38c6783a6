"""Descriptors in a models root: what is read, what is refused, and why; nothing holds the reader or leads outside."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from dreamforge import models_root
from dreamforge.models_root import DESCRIPTOR, BadDescriptor
from tests.models_on_disk import install


def test_what_was_written_is_read_and_found(tmp_path: Path) -> None:
    made = install(tmp_path, presets={"own@1": {"gpu_memory_gib": 8, "defaults": {"steps": 9}}})
    assert models_root.read(tmp_path / made.folder) == made
    (found,) = models_root.scan(tmp_path)
    assert found == (tmp_path / made.folder, made, None)
    told = models_root.descriptor(tmp_path, made, None)
    assert (told.id, told.slug, told.installed) == (made.id, made.slug, True)
    assert told.presets["own@1"].fills == {"steps": 9}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({"slug": "../up"}, "slug"),
        ({"slug": "a/b"}, "slug"),
        ({"version": ".."}, "version"),
        ({"version": "v1/../../x"}, "version"),
        ({"kind": "checkpoint-of-mine"}, "kind"),
        ({"files": []}, "files"),
        ({"files": [{"path": "../x", "role": "checkpoint", "size_bytes": 1, "sha256": "0" * 64}]}, "files.0.path"),
        ({"files": [{"path": "/etc/passwd", "role": "checkpoint", "size_bytes": 1, "sha256": "0" * 64}]}, "files.0"),
        ({"files": [{"path": "x", "role": "checkpoint", "size_bytes": 1, "sha256": "0" * 63}]}, "files.0.sha256"),
        ({"files": [{"path": "x", "role": "config", "size_bytes": 1, "sha256": "0" * 64}]}, "no file has the role"),
        ({"presets": {"own": {"gpu_memory_gib": 8, "defaults": {}}}}, "presets"),
        ({"presets": {"own@1": {"gpu_memory_gib": 8, "defaults": {"prompt": "x"}}}}, "presets"),
        ({"token": "x"}, "token"),
    ],
)
def test_a_descriptor_that_breaks_a_rule_says_which(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    folder = tmp_path / install(tmp_path).folder
    good = json.loads((folder / DESCRIPTOR).read_text())
    (folder / DESCRIPTOR).write_text(json.dumps(good | changes))
    with pytest.raises(BadDescriptor, match=named):
        models_root.read(folder)
    (found,) = models_root.scan(tmp_path)
    assert found.model is None
    assert str(folder / DESCRIPTOR) in str(found.problem)


def test_what_is_no_descriptor_neither_holds_the_reader_nor_fills_its_memory(tmp_path: Path) -> None:
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / DESCRIPTOR)
    (tmp_path / "endless").mkdir()
    (tmp_path / "endless" / DESCRIPTOR).symlink_to("/dev/zero")
    (tmp_path / "folder" / DESCRIPTOR).mkdir(parents=True)
    (tmp_path / "nothing").mkdir()
    for name in ("pipe", "endless", "folder", "nothing"):
        with pytest.raises(BadDescriptor):
            models_root.read(tmp_path / name)


def test_what_the_layout_does_not_know_is_passed_over(tmp_path: Path) -> None:
    made = install(tmp_path)
    install(tmp_path / ".staging")
    (tmp_path / "sdxl-checkpoint" / ".hidden@1").mkdir()
    (tmp_path / "sdxl-checkpoint" / ".hidden@1" / DESCRIPTOR).write_text("{}")
    (tmp_path / "sdxl-checkpoint" / "empty@1").mkdir()
    (tmp_path / "one.safetensors").write_bytes(b"x")
    assert [found.model for found in models_root.scan(tmp_path)] == [made]
    assert list(models_root.scan(tmp_path / "nothing")) == []


def test_a_folder_that_leads_out_of_the_root_is_no_model(tmp_path: Path) -> None:
    outside = install(tmp_path / "elsewhere")
    (tmp_path / "root" / "sdxl-checkpoint").mkdir(parents=True)
    link = tmp_path / "root" / outside.folder
    link.symlink_to(tmp_path / "elsewhere" / outside.folder)
    (found,) = models_root.scan(tmp_path / "root")
    assert (found.model, found.problem) == (None, f"{link} leads out of the models root")
    whole = tmp_path / "linked"
    whole.symlink_to(tmp_path / "elsewhere")
    (found,) = models_root.scan(whole)
    assert found.problem is None, "the root itself may be a link"
