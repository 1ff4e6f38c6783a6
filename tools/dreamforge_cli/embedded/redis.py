"""A private Redis: append-only file in one folder, TCP on loopback, password login."""

import contextlib
import os
import re
import signal
import time
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from dreamforge_cli.embedded.binaries import RedisBinary, find_redis
from dreamforge_cli.embedded.launch import Launch, launch
from dreamforge_cli.embedded.server import EmbeddedServer, ServerDidNotStart, keep_password

_ONCE = Retry(NoBackoff(), 0)
_STOP_SECONDS = 6.0


class EmbeddedRedis(EmbeddedServer):
    """Nothing is evicted (``noeviction``): a queue that drops entries would lose work silently."""

    name = "redis"
    stop_signal = signal.SIGTERM

    def __init__(self, home: Path, *, binary: RedisBinary | None = None) -> None:
        super().__init__(home)
        self._binary = binary or find_redis()
        self._password = ""

    @property
    def source(self) -> str:
        return f"Redis from {self._binary.source}"

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    def prepare(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._password = keep_password(self.home / "password")
        self._stop_orphan()

    def launch(self) -> Launch:
        self._write_config()
        return launch([self._binary.server, self._config], death_signal=self.stop_signal)

    def ready(self) -> bool:
        return self._answers(self.port)

    @property
    def _config(self) -> Path:
        return self.home / "redis.conf"

    def _connect(self, port: int) -> "redis.Redis":
        return redis.Redis(
            "127.0.0.1", port, password=self._password, socket_connect_timeout=2, socket_timeout=2, retry=_ONCE
        )

    def _answers(self, port: int) -> bool:
        client = self._connect(port)
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()

    def _stop_orphan(self) -> None:
        """Two servers on one append-only file would ruin it. Knowing our password proves that one is ours."""
        old = re.search(r"^port (\d+)$", self._config.read_text(), re.M) if self._config.exists() else None
        if old is None or not self._answers(port := int(old[1])):
            return
        client = self._connect(port)
        with contextlib.suppress(redis.ConnectionError):
            client.shutdown()
        client.close()
        deadline = time.monotonic() + _STOP_SECONDS
        while self._answers(port):
            if time.monotonic() > deadline:
                raise ServerDidNotStart(f"a Redis of an earlier run holds {self.home} and can't be stopped")
            time.sleep(0.02)

    def _write_config(self) -> None:
        """The password goes by file: a command line can be read by every user of the machine."""
        lines = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": f'"{self.home}"',
            "requirepass": self._password,
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": '""',
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        self._config.unlink(missing_ok=True)
        handle = os.open(self._config, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as out:
            out.write("".join(f"{key} {value}\n" for key, value in lines.items()))
