"""``python -m dreamforge_runner convert FOLDER``: the command's edge; one line of JSON says what it came to."""

import json
import sys
from pathlib import Path

from dreamforge.errors import FACTS, JobError
from dreamforge_runner.backends.sdxl import conversion
from dreamforge_runner.backends.sdxl.plan import Number

_FAILED = 1


def run(folder: Path, kind: Number | None, *, keep_original: bool) -> int:
    """The exit status: 0, 1, or the exit code of an error's class."""
    try:
        model, already = conversion.convert(folder, kind, keep_original=keep_original)
    except JobError as error:
        sys.stderr.write(f"{error}\n")
        return FACTS[error.code].exit_code or _FAILED
    except OSError as error:
        sys.stderr.write(
            f"{error.filename or folder}: {error.strerror or error}; a model is converted where its folder can be "
            "written to, and stays as it was when that ends early\n"
        )
        return _FAILED
    except KeyboardInterrupt:
        return 130
    found = model.conversion
    facts = {
        "id": model.id,
        "event": "already_converted" if already else "converted",
        "dtype": found and found.dtype,
        "bytes": sum(file.size_bytes for file in found.files) if found else 0,
        "original_kept": model.original_kept,
    }
    sys.stdout.write(json.dumps(facts) + "\n")
    return 0
