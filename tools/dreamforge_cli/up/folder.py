"""The data folder of `up`: where everything lies, who holds it, and the secret that signs links."""

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dreamforge.errors import ConfigurationError


class DataFolder:
    """One folder holds one installation; taking the lock makes all its parts."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().resolve()
        self.logs = self.root / "logs"
        self.objects = self.root / "objects"
        self.metrics = self.root / "run" / "metrics"
        self.postgres = self.root / "postgres"
        self.redis = self.root / "redis"
        self.models = self.root / "models"
        self._servers = self.root / "run" / "servers.json"
        self._lock = self.root / "up.lock"

    def spool(self, slot: int) -> Path:
        """Where a runner keeps events that are not yet safe; the same slot finds them again."""
        return self.root / "spool" / str(slot)

    def require_free(self) -> None:
        """Raises ``ConfigurationError`` when another process has the folder. Makes and changes nothing."""
        try:
            lock = self._lock.open()
        except OSError:
            return
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigurationError(self._held_by(lock.read())) from None

    @contextmanager
    def held(self, url: str) -> Iterator[None]:
        """Hold the folder for this process; raises ``ConfigurationError`` when another one has it."""
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise ConfigurationError(f"--data {self.root}: can't be used: {error.strerror}") from error
        with os.fdopen(handle, "r+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigurationError(self._held_by(lock.read())) from None
            lock.truncate(0)
            json.dump({"pid": os.getpid(), "url": url}, lock)
            lock.flush()
            self._clean()
            yield

    def signing_key(self) -> str:
        """The secret that signs image links: drawn once, so that links live through a restart."""
        folder = self.root / "secrets"
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / "signing_key"
        if not path.exists():
            _write_private(path, secrets.token_urlsafe(32))
        return path.read_text().strip()

    def keep_servers(self, database_url: str, redis_url: str, models_root: str) -> None:
        """Note where this run's servers and models are, passwords and all, for commands that need them."""
        kept = {"database_url": database_url, "redis_url": redis_url, "models_root": models_root}
        _write_private(self._servers, json.dumps(kept))

    def servers(self) -> tuple[str, str] | None:
        """URLs of PostgreSQL and Redis of the latest run; ``None`` when there was none."""
        kept = self._kept("database_url", "redis_url")
        return None if kept is None else (kept[0], kept[1])

    def models_root(self) -> Path | None:
        """Where the latest run looked for models; ``None`` when there was none."""
        kept = self._kept("models_root")
        return None if kept is None else Path(kept[0])

    def _kept(self, *names: str) -> list[str] | None:
        try:
            kept = json.loads(self._servers.read_text())
            return [str(kept[name]) for name in names]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _held_by(self, note: str) -> str:
        try:
            holder = json.loads(note)
            who = f"pid {holder['pid']}, {holder['url']}"
        except (ValueError, KeyError, TypeError):
            who = "starting"
        return f"another `dreamforge up` ({who}) already runs on {self.root}; stop it or choose another --data folder"

    def _clean(self) -> None:
        """Metric files of an earlier run would be counted twice."""
        shutil.rmtree(self.metrics, ignore_errors=True)
        self.metrics.mkdir(parents=True)


def _write_private(path: Path, text: str) -> None:
    """Whole or not at all, for the owner's eyes only."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(text)
    draft.rename(path)
