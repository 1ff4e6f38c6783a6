"""Write the OpenAPI document to ``docs/openapi/``: ``python -m dreamforge_api.openapi``.

``--check`` only compares what is there with what the code says.
"""

import argparse
import json
import sys
from pathlib import Path

import yaml

from dreamforge_api.app import create_app

_FOLDER = Path("docs/openapi")


def rendered() -> dict[Path, str]:
    """The files to commit and what belongs in them."""
    made = create_app().openapi()
    return {
        _FOLDER / "openapi.v1.json": json.dumps(made, indent=2, ensure_ascii=False) + "\n",
        _FOLDER / "openapi.v1.yaml": yaml.safe_dump(made, sort_keys=False, allow_unicode=True, width=100),
    }


def main() -> int:
    """Exit 1 when ``--check`` finds a difference."""
    parser = argparse.ArgumentParser(prog="python -m dreamforge_api.openapi", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with what is committed, write nothing")
    check = parser.parse_args().check
    stale = [path for path, text in rendered().items() if not path.exists() or path.read_text("utf-8") != text]
    if check:
        for path in stale:
            sys.stderr.write(f"{path} is not what the code says; run python -m dreamforge_api.openapi\n")
        return 1 if stale else 0
    for path, text in rendered().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
