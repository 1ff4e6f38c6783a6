"""The worker as a real process on given servers."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.stack import clean_environment


@contextmanager
def worker(folder: Path, database_url: str, redis_url: str, **more: str) -> Iterator[Path]:
    """``python -m dreamforge_api.worker``, ended politely; gives its log. Objects lie in ``folder/objects``."""
    settings = {"DF_DATABASE_URL": database_url, "DF_REDIS_URL": redis_url, "DF_STORE_ROOT": str(folder / "objects")}
    log = folder / "worker.log"
    with log.open("a") as out:
        argv = [sys.executable, "-m", "dreamforge_api.worker"]
        child = subprocess.Popen(argv, env=clean_environment(**settings, **more), stdout=out, stderr=out, cwd=folder)
        try:
            yield log
        finally:
            child.terminate()
            assert child.wait(30) == 0, log.read_text()
