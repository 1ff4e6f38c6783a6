"""``python -m benchmarks.converted_load``: a model from its converted files against the same from its checkpoint.

Each load is a fresh process; its clock starts when the libraries are imported and the sha256 of files is known: the
figure is what a runner adds to its import. *warm* has the files in the page cache, *cold* has dropped them from it.
Converted files are mapped and read when first used, so both sides then copy every weight once into a small buffer, as
a copy to a device would; both figures are kept. The CPU only: no device is touched.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import Comparison, compare, record, table
from dreamforge import models_root
from dreamforge.models_root import InstalledModel

_ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "", "DF_SDXL_DTYPE": "bfloat16", "DF_SDXL_VAE_DTYPE": "bfloat16"}
_MAKE = """
import sys, torch
from pathlib import Path
from benchmarks.gpu import model
torch.set_default_dtype(torch.float16)
print(model.files(sys.argv[1], "cpu", Path(sys.argv[2]), torch.float16).checkpoint)
"""
_LOAD = """
import json, sys, time
from pathlib import Path
import torch
from dreamforge.spec import ModelRef
from dreamforge_runner.backends.sdxl import SdxlBackend
from dreamforge_runner.backends.sdxl.settings import SdxlSettings
root, reference = Path(sys.argv[1]), ModelRef.model_validate_json(sys.argv[2])
backend = SdxlBackend(SdxlSettings(models_root=root, hash_cache_path=None))
began = time.perf_counter()
backend.load(reference)
loaded = time.perf_counter()
pipe, room = backend._engine._pipe, torch.empty(2**28, dtype=torch.uint8)
for part in (pipe.unet, pipe.vae, pipe.text_encoder, pipe.text_encoder_2):
    for weight in part.parameters():
        bits = weight.detach().flatten().view(torch.uint8)
        room[: len(bits)].copy_(bits)
ended = time.perf_counter()
notices = [notice.message for notice in backend._engine._notices]
print(json.dumps({"load": loaded - began, "total": ended - began, "notices": notices}))
"""


class Loads:
    """One installed model, loaded from this or that."""

    def __init__(self, root: Path, model: InstalledModel) -> None:
        self._root, self._model = root, model
        self._folder = root / model.folder
        self.mapped: list[float] = []  # seconds of `load` alone, converted
        conversion = model.conversion
        assert conversion is not None
        self._files = {
            "converted": [self._folder / file.path for file in conversion.files],
            "checkpoint": [self._folder / model.checkpoint.path],
        }

    def seconds(self, side: str, *, cold: bool) -> float:
        """Until every weight was read, from ``converted`` files or from the ``checkpoint``."""
        self._cache(side, cold=cold)
        # The descriptor decides what is loaded, so the checkpoint's side has one without a conversion.
        bare = self._model.model_copy(update={"conversion": None})
        models_root.write(self._root, self._model if side == "converted" else bare)
        checkpoint = self._files["checkpoint"][0]
        reference = {"id": self._model.id, "name": "n", "kind": self._model.kind.value, "version": "1"}
        told = json.loads(
            _python(_LOAD, str(self._root), json.dumps({**reference, "path": str(checkpoint)})).splitlines()[-1]
        )
        assert not told["notices"], told  # else the other side was measured
        if side == "converted":
            self.mapped.append(told["load"])
        return float(told["total"])

    def _cache(self, side: str, *, cold: bool) -> None:
        for name, paths in self._files.items():
            for path in paths:
                with path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                    while name == side and not cold and file.read(1 << 24):
                        pass


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.converted_load", description=__doc__)
    parser.add_argument(
        "--size", default="sdxl", choices=["sdxl", "narrow"], help="sdxl: 14 GB of disk, 16 GB of RAM"
    )
    parser.add_argument(
        "--folder", type=Path, default=Path(".cache/bench/converted"), help="weights; kept afterwards"
    )
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(".cache/bench/converted.json"))
    arguments = parser.parse_args()
    loads, notes = prepare(arguments.size, arguments.folder.absolute())
    rows = []
    for name, cold in (("L1", False), ("L1c", True)):
        what = f"load from converted files against the checkpoint, {'cold' if cold else 'page cache warm'}"
        row = Comparison(name, what, "s until every weight was read", 0.5, lower_is_better=True, notes=list(notes))
        compare(
            row,
            lambda cold=cold: loads.seconds("converted", cold=cold),  # type: ignore[misc]
            lambda cold=cold: loads.seconds("checkpoint", cold=cold),  # type: ignore[misc]
            arguments.pairs,
        )
        row.notes.append(f"`load` alone, converted: {', '.join(f'{value:.2f}' for value in loads.mapped)} s")
        loads.mapped.clear()
        print("\n     ".join([row.line(), *row.notes]), flush=True)
        rows.append(row)
    record(arguments.out, [*rows], {"weights": f"{arguments.size}, random, float16 to bfloat16"})
    print(f"\n{table([*rows])}\nraw figures: {arguments.out}")
    return 0


def prepare(size: str, folder: Path) -> tuple[Loads, list[str]]:
    """Make the checkpoint, adopt it and convert it; what was there already is used again."""
    root = folder / "models"
    made = Path(_python(_MAKE, size, str(folder)).splitlines()[-1])
    _dreamforge("adopt", str(made), "--config", str(made.parent / "config"), "--root", str(root), "--json")
    began = time.perf_counter()
    told = _dreamforge("convert", "sdxl-tiny-sdxl", "--dtype", "bfloat16", "--root", str(root), "--json")
    took = time.perf_counter() - began
    (found,) = [one.model for one in models_root.scan(root) if one.model is not None]
    assert found.conversion is not None
    written = sum(file.size_bytes for file in found.conversion.files)
    note = f"{found.checkpoint.size_bytes / 1e9:.2f} GB of checkpoint, {written / 1e9:.2f} GB of converted files"
    if told["event"] == "converted":
        note += f"; `model convert` took {took:.0f} s, import and comparison included"
    return Loads(root, found), [note]


def _dreamforge(*arguments: str) -> dict[str, Any]:
    program = "from dreamforge_cli.main import main; main()"
    said = _python(program, "model", *arguments)
    return dict(json.loads(said)) if said.startswith("{\n") else {}


def _python(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, **_ENVIRONMENT},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


if __name__ == "__main__":
    raise SystemExit(main())
