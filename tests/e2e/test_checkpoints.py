"""A checkpoint that goes bad under a running system: its jobs say so and the runner lives on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import checks
from tests.tiny_sdxl import broken

_CORPUS = {one.name: one for one in broken.CORPUS}


@pytest.fixture
def mended(checkpoint: Path) -> Iterator[bytes]:
    """The good bytes; they are in place again afterwards."""
    good = checkpoint.read_bytes()
    yield good
    replace(checkpoint, good)


def replace(path: Path, data: bytes) -> None:
    """As a person would put a file in place of another: whole, at once, a new file."""
    draft = path.with_suffix(".new")
    draft.write_bytes(data)
    draft.replace(path)


@pytest.mark.parametrize("how", ["missing", "truncated-data", "pickle", "sd1", "zip-renamed", "empty"])
def test_a_bad_checkpoint(sdxl, checkpoint, mended, tmp_path, how):
    sdxl.client.render()
    runner = sdxl.process("runner").pid
    canary = tmp_path / "unpickled"
    if how == "missing":
        checkpoint.unlink()
    elif how == "pickle":
        replace(checkpoint, broken.pickle_bomb(canary))
    else:
        replace(checkpoint, _CORPUS[how].make(mended))
    job = sdxl.client.wait(sdxl.client.post()["id"], "failed")
    assert job["error"]["code"] == ("model_missing" if how == "missing" else "model_invalid")
    assert job["error"]["retryable"] is False
    assert job["attempt"] == 1
    (attempt,) = checks.attempts(sdxl, job)
    assert attempt["exit_code"] == (11 if how == "missing" else 12)
    frames = checks.history(sdxl, job, "failed")
    (error,) = [frame.data for frame in frames if frame.event == "error"]
    assert {name: error[name] for name in ("code", "message", "retryable")} == {
        name: job["error"][name] for name in ("code", "message", "retryable")
    }
    assert not canary.exists()
    replace(checkpoint, mended)
    checks.whole(sdxl, sdxl.client.render())
    assert sdxl.process("runner").pid == runner
