"""Converting an installed checkpoint: done by the runner's program, in a process of its own, since it needs torch."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dreamforge.errors import ConfigurationError, ErrorCode, from_exit_code
from dreamforge_cli.models.errors import DiskError, IntegrityError, ModelError
from dreamforge_cli.up.backend import missing_libraries

_BAD_FILES = (ErrorCode.MODEL_MISSING, ErrorCode.MODEL_INVALID)


def check_libraries(missing: Sequence[str] | None = None) -> None:
    """Raise ``ConfigurationError`` with what to do where nothing can be converted."""
    absent = missing_libraries() if missing is None else missing
    if absent:
        raise ConfigurationError(
            f"converting needs SDXL's libraries, and these are not installed here: {', '.join(absent)}. Install them "
            "(pip install 'dreamforge[sdxl]'; in a checkout: make setup-sdxl), or run `python -m dreamforge_runner "
            "convert FOLDER` where they are, such as in the runner's image with the models mounted writable"
        )


def convert(folder: Path, dtype: str | None, *, keep_original: bool) -> dict[str, Any]:
    """What the runner's program says of the model in ``folder``; raises errors of ours."""
    options = [*(["--dtype", dtype] if dtype else []), *([] if keep_original else ["--drop-original"])]
    command = [sys.executable, "-m", "dreamforge_runner", "convert", str(folder), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return dict(json.loads(done.stdout.splitlines()[-1]))
    lines = done.stderr.strip().splitlines()
    said = lines[-1] if lines else "it said nothing"
    message = f"the conversion failed: {said}"
    code = from_exit_code(done.returncode)
    if code in _BAD_FILES:
        raise IntegrityError(message)
    raise (DiskError if code is ErrorCode.DISK_FULL else ModelError)(message)
