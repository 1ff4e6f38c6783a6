"""What is told of a download under way, and what is believed of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from dreamforge_cli.models.fetch import sidecar
from dreamforge_cli.models.fetch.sidecar import Progress, Sidecar

DIGEST = "sha256:" + "0" * 64


def saved(**changes: Any) -> Sidecar:
    given: dict[str, Any] = {
        "digest": DIGEST, "size": 100, "etag": '"one"', "boot": sidecar.boot(),
        "written": Progress(done=((0, 50), (60, 70)), hashed=50, hash_state="x"), "synced": Progress(done=((0, 20),)),
    }  # fmt: skip
    return Sidecar(**{**given, **changes})


@pytest.fixture
def paths(tmp_path: Path) -> tuple[Path, Path]:
    part = tmp_path / "x.part"
    part.write_bytes(bytes(70))
    return tmp_path / "x.part.json", part


def test_it_says_what_it_was_told(paths: tuple[Path, Path]):
    sidecar.save(paths[0], saved())
    assert sidecar.load(*paths, DIGEST) == saved()
    assert sorted(path.name for path in paths[0].parent.iterdir()) == ["x.part", "x.part.json"]


@pytest.mark.skipif(not sidecar.boot(), reason="this system does not say which boot it is")
def test_after_another_boot_only_what_was_synced_is_trusted():
    assert saved().trusted() == saved().written
    assert saved(boot="another").trusted() == saved().synced
    assert saved(boot="").trusted() == saved().synced


def test_of_another_digest_or_without_its_bytes_it_is_nothing(paths: tuple[Path, Path]):
    sidecar.save(paths[0], saved())
    assert sidecar.load(*paths, "sha256:other") is None
    paths[1].write_bytes(bytes(69))
    assert sidecar.load(*paths, DIGEST) is None
    paths[1].unlink()
    assert sidecar.load(*paths, DIGEST) is None


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 2}, {"size": 60}, {"size": -1}, {"size": 2**60}, {"more": 1},
        {"boot": None}, {"digest": 5},
        {"written": {"done": [[50, 0]]}}, {"written": {"done": [[0, 50], [40, 60]]}},
        {"written": {"done": [[-1, 50]]}},
        {"written": {"done": [[0, 50]], "hashed": 51}}, {"written": {"done": [[10, 50]], "hashed": 20}},
        {"written": {"done": [[0, 50, 60]]}}, {"etag": "x" * 500},
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_not_believed(paths: tuple[Path, Path], change: dict[str, Any]):
    paths[0].write_text(json.dumps({**json.loads(saved().model_dump_json()), **change}))
    assert sidecar.load(*paths, DIGEST) is None


@pytest.mark.parametrize("text", [b"", b"{", b"null", b"[]", b"\xff", b"[" * 100_000, b" " * 2**21])
def test_nor_is_what_is_no_sidecar(paths: tuple[Path, Path], text: bytes):
    paths[0].write_bytes(text)
    assert sidecar.load(*paths, DIGEST) is None
