"""The imitation of Hugging Face is faithful: its makers' own client resolves and downloads from it, unchanged."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dreamforge_cli.models import reference
from tests.integration.models.conftest import MakeContext
from tests.standins.huggingface import HuggingFace

FILES = {"thing.safetensors": b"weights" * 40_000, "unet/config.json": b'{"unet": 1}', "model_index.json": b"{}"}


@pytest.fixture
def seen(hf: HuggingFace, tmp_path: Path) -> dict[str, Any]:
    """What the client makes of the imitation, in a process of its own: it reads its endpoint once, at its import."""
    hf.add("owner/thing-xl", dict(FILES), revisions={"main", "v1"})
    hf.add("owner/gated", {"x.safetensors": b"x"}, gated="manual")
    hf.add("owner/disabled", {"x.safetensors": b"x"}, disabled=True)
    hf.rename("owner/old", "owner/thing-xl")
    hf.tokens |= {"known", "member"}
    hf.members.add("member")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    environment = {**kept, "HF_ENDPOINT": hf.url, "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.models.hub_client", str(tmp_path / "cache")],
        env=environment,
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_the_real_client_resolves_what_the_adapter_resolves(hf: HuggingFace, seen, make_context: MakeContext):
    found = reference.resolve("hf:owner/thing-xl@v1", make_context())
    (file,) = found.files
    commit = found.provenance.commit
    assert seen["commit"] == commit == hf.commit_of("owner/thing-xl")
    assert seen["files"]["thing.safetensors"][::2] == [file.size_bytes, file.sha256]
    assert seen["lfs"] == [commit, file.sha256, file.size_bytes]
    assert seen["plan"] == [commit, file.size_bytes]
    assert seen["sha256"] == file.sha256
    assert seen["license"] == found.provenance.license
    assert seen["tree"] == sorted(FILES)
    assert seen["snapshot"] == ["model_index.json", "unet/config.json"]


def test_small_files_are_told_by_their_git_blob(hf: HuggingFace, seen):
    size, blob, sha256 = seen["files"]["unet/config.json"]
    assert (size, sha256) == (len(FILES["unet/config.json"]), None)
    assert seen["git"] == [hf.commit_of("owner/thing-xl"), blob, size]


def test_its_refusals_are_those_that_the_real_client_knows(seen):
    assert seen["refused"] == {
        "no repository": "RepositoryNotFoundError",
        "no revision": "RevisionNotFoundError",
        "no file": "RemoteEntryNotFoundError",
        "gated": "GatedRepoError",
        "gated, by its check": "GatedRepoError",
        "gated, not a member": "GatedRepoError",
        "gated, a member": "none",
        "wrong token": "HfHubHTTPError",
        "disabled": "DisabledRepoError",
    }
