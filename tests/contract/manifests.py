"""What kustomize makes of the manifests, as contract tests read it."""

import functools
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster import parts
from tests.contract.project import ROOT

Object = dict[str, Any]


def kubectl(*arguments: str | Path) -> str:
    """Its stdout. It needs no cluster for what it is asked here."""
    program = parts.kubectl()
    if program is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run([program, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@functools.cache
def built(folder: Path) -> list[Object]:
    """What `kubectl apply -k` would send."""
    return list(yaml.safe_load_all(kubectl("kustomize", folder)))
