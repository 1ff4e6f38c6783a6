"""``python -m benchmarks.download_client URL SIZE SHA256 TARGET``: one download; prints its seconds and peak MiB.

The seconds are those of the fetcher, without the start of Python; a refusal on the way (``/until``) is no error here.
"""

import json
import resource
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from dreamforge.models import FileRole
from dreamforge_cli.models.errors import ModelError
from dreamforge_cli.models.fetch.fetcher import fetch
from dreamforge_cli.models.fetch.guard import open_client
from dreamforge_cli.models.sources.base import ResolvedFile


def main() -> None:
    url, size, sha256, target = sys.argv[1:]
    file = ResolvedFile("model.safetensors", FileRole.CHECKPOINT, url, int(size), sha256)
    with open_client([urlsplit(url).netloc]) as client:
        began, received, refused = time.perf_counter(), 0, ""
        try:
            received = fetch(file, Path(target), client).received_bytes
        except ModelError as error:
            refused = str(error)
        seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mib": peak, "received": received, "refused": refused}))


if __name__ == "__main__":
    main()
