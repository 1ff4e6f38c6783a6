"""Write a package's metadata beside its copied code: name, version and entry points, as an installed wheel has them.

    python scripts/dist_info.py pyproject.toml FOLDER

Images copy code instead of installing it; what asks for metadata (the version, sources of models) finds it so.
Standard library only: it runs where nothing is installed.
"""

import sys
import tomllib
from pathlib import Path


def write(pyproject: Path, folder: Path) -> Path:
    """The ``.dist-info`` folder made in ``folder``."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    made = folder / f"{project['name']}-{project['version']}.dist-info"
    made.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (made / "METADATA").write_text(metadata, encoding="utf-8")
    lines = [
        line
        for group, entries in project.get("entry-points", {}).items()
        for line in (f"[{group}]", *(f"{name} = {target}" for name, target in entries.items()), "")
    ]
    (made / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
    return made


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
