"""The system under attack: `dreamforge up` with two runners, short patience and every crash point within reach."""

import errno
import fcntl
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
import redis

from dreamforge.crashpoints import CrashPoint
from tests.e2e.system import System
from tests.faults.marks import Marks
from tests.processes import gone
from tests.servers.stack import clean_environment, until

#: Parts that `up` restarts, and the words of their command lines.
PARTS = {
    "api": ("dreamforge_api",),
    "worker": ("dreamforge_api.worker",),
    "runner": ("dreamforge_runner", "serve"),
    "child": ("dreamforge_runner.child",),
    "postgres": ("postgres", "-D"),
    "redis": ("redis",),
}
#: Recovery is ours to set; a person's patience is longer than a test's. Ten attempts: chance may hit one job thrice.
PATIENCE = {
    "DF_SILENCE_SECONDS": "2",
    "DF_RESTART_LONGEST_SECONDS": "1",
    "DF_MAX_ATTEMPTS": "10",
    "DF_MAX_RUNNER_LOSSES": "10",
}


class Stack(System):
    """A system and the means to hurt it."""

    def __init__(self, data: Path) -> None:
        data.parent.mkdir(parents=True, exist_ok=True)
        self.marks = Marks(data.with_name("marks"))
        environment = {**PATIENCE, **self.marks.environment}
        super().__init__(data, "--backend", "sketch", "--slots", "2", environment=environment)

    def processes(self, part: str) -> list[psutil.Process]:
        """The live processes that play this part; servers without the helpers they forked."""
        assert self.up.process
        found = []
        for process in self.up.children():
            try:
                line, parent = process.cmdline(), process.ppid()
            except psutil.NoSuchProcess:
                continue
            if part != "child" and parent != self.up.process.pid:
                continue
            names = [word.rpartition("/")[2] for word in line]
            if all(any(name == word or (word == "redis" and word in name) for name in names) for word in PARTS[part]):
                found.append(process)
        return found

    def one(self, part: str, chance: random.Random) -> psutil.Process:
        """One process of this part; the deadline covers one that is being started again."""
        found: list[psutil.Process] = until(lambda: self.processes(part), 60, f"a process {part}")
        return chance.choice(found)

    def kill(self, part: str, chance: random.Random) -> None:
        """SIGKILL to one process of this part."""
        victim = self.one(part, chance)
        with suppress(psutil.NoSuchProcess):  # it died by itself in this very moment
            victim.kill()

    def killed_at(self, point: CrashPoint, seconds: float = 60) -> int:
        """Wait until a process died at the armed ``point``; its pid."""
        pid: int = until(lambda: self.marks.victim(point), seconds, f"a crash at {point}")
        until(lambda: gone(pid), 10, f"the death of {pid}")
        return pid

    def wipe_redis(self) -> None:
        """Redis forgets everything, and dies."""
        until(self._flushed, 30, "a Redis to empty")
        self.kill("redis", random.Random())

    def _flushed(self) -> bool:
        try:
            with redis.Redis.from_url(self.redis_url) as wiped:
                return bool(wiped.flushall())
        except redis.ConnectionError:  # the one killed before is not back yet
            return False

    def remove_orphans(self) -> str:
        """One pass of retention, as a person starts it, with no patience for orphans; what it says."""
        done = subprocess.run(
            [sys.executable, "-m", "dreamforge_api.worker.retention"],
            env=clean_environment(**self.settings, DF_RETENTION_ORPHAN_GRACE_HOURS="0.000001"),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def runner_of(self, job_id: str) -> psutil.Process | None:
        """The runner that has this job in hand: the attempt's spool lies in its folder."""
        for attempt in self.rows("SELECT attempt_id FROM attempts WHERE job_id = %s AND status = 'running'", job_id):
            for path in (self.data / "spool").glob(f"*/runner-*/{attempt['attempt_id']}.ndjson"):
                slot = str(path.parent.parent)
                return next((p for p in self.processes("runner") if p.environ()["DF_SPOOL_DIR"] == slot), None)
        return None

    @contextmanager
    def frozen(self, part: str) -> Iterator[None]:
        """All processes of this part, and what they forked, stand still: connections hang instead of breaking."""
        with self.still(self.processes(part)):
            yield

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """PostgreSQL is shut down and refuses connections: a line in its settings keeps it from starting again."""
        settings = self.data / "postgres" / "data" / "postgresql.auto.conf"
        right = settings.read_text()
        settings.write_text(f"{right}no_such_setting = on\n")
        try:
            with suppress(psutil.NoSuchProcess):
                self.one("postgres", random.Random()).send_signal(signal.SIGINT)
            until(self._refused, 30, "an end of PostgreSQL")
            yield
        finally:
            settings.write_text(right)

    def _refused(self) -> bool:
        port = urlsplit(self.settings["DF_DATABASE_URL"]).port
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port or 0)) == errno.ECONNREFUSED

    def unfinished(self) -> list[str] | None:
        """Jobs that have not ended; ``None`` while PostgreSQL is away."""
        try:
            return [str(row["id"]) for row in self.rows("SELECT id FROM jobs WHERE finished_at IS NULL")]
        except psycopg.OperationalError:
            return None

    @contextmanager
    def still(self, mains: list[psutil.Process]) -> Iterator[None]:
        """These processes and all below them stand still, none with the store's lock in its hand."""
        assert mains
        still = list(mains)
        try:
            with (self.data / "objects" / ".lock").open("ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                _send(mains, signal.SIGSTOP)  # first, so that they start no more
                still += [child for main in mains for child in main.children(recursive=True)]
                _send(still, signal.SIGSTOP)
                until(lambda: all(map(_stands, still)), 10, "standing still")
            yield
        finally:
            _send(still, signal.SIGCONT)


def _send(processes: list[psutil.Process], sign: signal.Signals) -> None:
    for process in processes:
        try:
            process.send_signal(sign)
        except psutil.NoSuchProcess:
            continue


def _stands(process: psutil.Process) -> bool:
    """Or is no more."""
    try:
        return process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
