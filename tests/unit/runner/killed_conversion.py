"""Publishes a conversion again and again, killed before each change of the disk in turn: ``... FOLDER``.

Prints a JSON list: for each death, what the disk means then and after another try. A process of its own, since it
forks.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dreamforge import models_root
from dreamforge.checkpoints import converted
from dreamforge.models_root import InstalledModel
from dreamforge_runner.backends.sdxl import conversion
from dreamforge_runner.backends.sdxl.plan import Number
from tests.converted_on_disk import LIBRARIES, drafted, install_converted
from tests.models_on_disk import install

_CHANGES = ("rename", "replace", "unlink", "rmdir", "fsync", "mkdir", "fchmod")
_KILLED = 9


def work(root: Path) -> None:
    """All of the command but for the libraries' part: a conversion to bfloat16, then without the checkpoint."""
    ((_, model, _),) = models_root.scan(root)
    assert model is not None
    shutil.rmtree(root / model.folder / conversion.ROOM, ignore_errors=True)
    if model.original_kept:
        drafted(root, model, Number.BFLOAT16)
        model = conversion.publish(root, model, Number.BFLOAT16, LIBRARIES)
    assert model.conversion is not None
    conversion.drop_original(root, model, model.conversion)
    shutil.rmtree(root / model.folder / conversion.ROOM, ignore_errors=True)


def _die_at(step: int) -> None:
    left = step

    def counted(change: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                os._exit(_KILLED)
            return change(*args, **kwargs)

        return wrapped

    for name in _CHANGES:
        setattr(os, name, counted(getattr(os, name)))


def _state(root: Path) -> dict[str, Any]:
    ((folder, model, problem),) = models_root.scan(root)
    assert model is not None
    told = model.conversion
    why = told and converted.why_not(folder, told, model.checkpoint.sha256, told.dtype)
    return {
        "problem": problem,
        "dtype": told and told.dtype,
        "why_not": why,
        "original_kept": model.original_kept,
        "original_there": (folder / model.checkpoint.path).is_file(),
        "room": (folder / conversion.ROOM).exists(),
    }


def walk(folder: Path, prepare: Callable[[Path], InstalledModel]) -> list[dict[str, Any]]:
    """What each death leaves; ends with the first run that nothing kills."""
    states = []
    for step in range(1, 1000):
        root = folder / str(step)
        prepare(root)
        child = os.fork()
        if child == 0:
            _die_at(step)
            work(root)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        state = {"status": status, **_state(root)}
        work(root)
        states.append({**state, "after": _state(root)})
        if status != _KILLED:
            return states
    raise AssertionError("it never ended")


if __name__ == "__main__":
    base = Path(sys.argv[1])
    os.fsync = lambda fd: None  # a death is no power cut: waiting for the disk would only take time
    found = {"fresh": walk(base / "fresh", install), "again": walk(base / "again", install_converted)}
    print(json.dumps(found))
