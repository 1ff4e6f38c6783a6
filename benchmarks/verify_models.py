"""D3: reading every byte of two models, against two sha256sum side by side."""

import shutil
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.harness import Comparison, NotMeasuredError, Result, compare
from benchmarks.stack import Servers
from dreamforge import models_root
from dreamforge.models import FileRole, ModelFile, ModelKind, Provenance
from dreamforge_cli.models import verify

_FILE_BYTES = 2**30
_NAME = "large.safetensors"
_CHUNK = bytes(range(256)) * 4096


def run(_servers: Servers, pairs: int = 5) -> list[Result]:
    """Measure D3."""
    tool = shutil.which("sha256sum")
    if tool is None:
        raise NotMeasuredError("no sha256sum on PATH")
    speed = Comparison("D3", "verify of two files of 1 GiB against two sha256sum", "s", 1.05, lower_is_better=True)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        files = [_model(root, slug) for slug in ("one", "two")]
        known = _sha256sum(tool, files)[1]
        speed = compare(speed, lambda: _ours(root, known), lambda: _sha256sum(tool, files)[0], pairs)
    speed.notes.append("the files are in the page cache, so the disk is not what is measured")
    return [speed]


def _model(root: Path, slug: str) -> Path:
    file = ModelFile(path=_NAME, role=FileRole.CHECKPOINT, size_bytes=_FILE_BYTES, sha256="0" * 64)
    model = models_root.InstalledModel(
        slug=slug,
        version="1",
        kind=ModelKind.SDXL_CHECKPOINT,
        name=slug,
        source_uri="file:bench",
        provenance=Provenance(source="file", ref="file:bench"),
        files=(file,),
        verified_at=datetime.now(UTC),
    )
    path = models_root.write(root, model) / _NAME
    with path.open("wb") as out:
        for _ in range(_FILE_BYTES // len(_CHUNK)):
            out.write(_CHUNK)
    return path


def _ours(root: Path, known: set[str]) -> float:
    began = time.perf_counter()
    verdicts = verify.verify(root, models_root.scan(root), lambda _name, _size: None)
    seconds = time.perf_counter() - began
    assert {file.sha256 for verdict in verdicts for file in verdict.files} == known
    return seconds


def _sha256sum(tool: str, files: list[Path]) -> tuple[float, set[str]]:
    began = time.perf_counter()
    running = [subprocess.Popen([tool, path], stdout=subprocess.PIPE, text=True) for path in files]
    said = [process.communicate()[0] for process in running]
    return time.perf_counter() - began, {line.split()[0] for line in said}
