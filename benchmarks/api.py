"""The real API as a process of its own, set up as ``dreamforge up`` sets it up, but with a queue without end."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.processes import Program, free_port, listening
from benchmarks.stack import Servers

MAX_QUEUED = 100_000
POOL = 10


@contextmanager
def real_api(
    servers: Servers, *, database_url: str | None = None, name: str = "api", **more: str
) -> Iterator[tuple[Program, int]]:
    """The process and its port; ``more`` are settings by their variables' names."""
    port, folder = free_port(), servers.folder / name
    environment = {
        "DF_API_PORT": str(port),
        "DF_DATABASE_URL": database_url or servers.database_url,
        "DF_REDIS_URL": servers.redis_url,
        "DF_DATABASE_POOL_SIZE": str(POOL),
        "DF_MAX_QUEUED": str(MAX_QUEUED),
        "DF_RUNNER_BACKEND": "sketch",
        "DF_STORE_ROOT": str(folder / "objects"),
        "DF_SIGNING_KEY": "benchmark-signing-key",
        "PROMETHEUS_MULTIPROC_DIR": str(_made(folder / "metrics")),
        **more,
    }
    with listening(name, ["dreamforge_api"], folder, environment, port) as running:
        yield running, port


@contextmanager
def bare(module: str, servers: Servers) -> Iterator[tuple[Program, int]]:
    """A bare reference app (``benchmarks.<module>``) with the same server settings, and its port."""
    port = free_port()
    environment = {
        "DF_API_PORT": str(port),
        "DF_DATABASE_URL": servers.database_url,
        "DF_DATABASE_POOL_SIZE": str(POOL),
    }
    with listening(module, [f"benchmarks.{module}"], servers.folder / module, environment, port) as running:
        yield running, port


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
