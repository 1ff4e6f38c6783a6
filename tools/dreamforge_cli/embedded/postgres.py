"""A private PostgreSQL: one cluster in one folder, TCP on loopback, password login."""

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

import psycopg

from dreamforge_cli.embedded.binaries import PostgresBinaries, find_postgres
from dreamforge_cli.embedded.launch import Launch, launch, unprivileged_user
from dreamforge_cli.embedded.server import EmbeddedServer, ServerDidNotStart, keep_password, stop_orphan

_USER = "dreamforge"
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    # Loopback with a password is enough; socket paths below deep data folders would be too long (107 bytes).
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "password_encryption": "scram-sha-256",
    "log_min_messages": "warning",
    # A statement or row in an error's DETAIL may hold a prompt, and prompts are never logged.
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
_CARELESS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class EmbeddedPostgres(EmbeddedServer):
    """``durable=False`` is for tests: a power cut may lose data, a killed process may not."""

    name = "postgres"
    #: "Fast shutdown": open sessions are ended, the state on disk is clean.
    stop_signal = signal.SIGINT

    def __init__(self, home: Path, *, binaries: PostgresBinaries | None = None, durable: bool = True) -> None:
        super().__init__(home)
        self._data = self.home / "data"
        self._durable = durable
        self._binaries = binaries or find_postgres(self._major())
        self._user = unprivileged_user()
        self._password = ""

    @property
    def source(self) -> str:
        return self._binaries.source

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://{_USER}:{self._password}@127.0.0.1:{self.port}/postgres"

    def prepare(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._password = keep_password(self.home / "password")
        if self._user:
            for path in (self.home, self.home / "password"):
                os.chown(path, self._user.uid, self._user.gid)
        if not self._data.exists():
            self._initialize()
        pid_file = self._data / "postmaster.pid"
        stop_orphan(pid_file, program="postgres", folder=self._data, stop_signal=signal.SIGINT)
        self._kill_left_behind()

    def launch(self) -> Launch:
        settings = {**_SETTINGS, **({} if self._durable else _CARELESS)}
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        argv: list[str | Path] = [self._binaries.postgres, "-D", self._data, "-p", str(self.port), *options]
        return launch(argv, user=self._user, death_signal=self.stop_signal, needs=self._data)

    def ready(self) -> bool:
        plain = self.url.replace("+psycopg", "", 1)
        try:
            with psycopg.connect(plain, connect_timeout=2) as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _kill_left_behind(self) -> None:
        """What a killed server leaves behind may hold its shared memory, and no new one starts beside it.

        A minute of that was seen. Each leads a process group of its own, but works in the data folder.
        """
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # gone meanwhile, or another user's
                if (process / "cwd").readlink() == self._data and (process / "exe").readlink().name == "postgres":
                    os.kill(int(process.name), signal.SIGKILL)

    def _major(self) -> int | None:
        try:
            return int((self._data / "PG_VERSION").read_text())
        except FileNotFoundError:
            return None

    def _initialize(self) -> None:
        """Run initdb beside the final place, so that an interrupted one is never taken for a cluster."""
        draft = self.home / "data.new"
        shutil.rmtree(draft, ignore_errors=True)
        # Locale C sorts by code point and exists everywhere, in the wheel's build too.
        how = ["--encoding=UTF8", "--no-locale", "--auth=scram-sha-256", f"--username={_USER}"]
        secret = f"--pwfile={self.home / 'password'}"
        sync = [] if self._durable else ["--no-sync"]
        command = launch(
            [self._binaries.initdb, "-D", draft, *how, secret, *sync],
            user=self._user,
            death_signal=signal.SIGTERM,
            needs=draft,
        )
        done = subprocess.run(command.argv, capture_output=True, text=True, cwd="/", check=False, **command.identity)
        if done.returncode != 0:
            raise ServerDidNotStart(f"initdb failed ({self.source}): {done.stderr.strip()[-2000:]}")
        draft.rename(self._data)
