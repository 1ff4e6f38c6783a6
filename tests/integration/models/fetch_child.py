"""``python -m tests.integration.models.fetch_child URL HOST SHA256 SIZE TARGET``: one download, to be killed."""

import sys
from pathlib import Path

from dreamforge.models import FileRole
from dreamforge_cli.models.fetch.fetcher import fetch
from dreamforge_cli.models.fetch.guard import open_client
from dreamforge_cli.models.sources.base import ResolvedFile


def main() -> None:
    url, host, sha256, size, target = sys.argv[1:]
    file = ResolvedFile("model.safetensors", FileRole.CHECKPOINT, url, int(size), sha256)
    with open_client([host]) as client:
        fetch(file, Path(target), client)


if __name__ == "__main__":
    main()
