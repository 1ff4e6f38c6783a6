"""One running system, seen from outside (HTTP) and from below: processes, rows, objects, log files."""

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
import psycopg
from psycopg.rows import dict_row

from dreamforge import keys
from tests.e2e.client import Client
from tests.servers.stack import Up, until

#: Words of the command lines of the processes below `up`; the render child is the runner's own.
_COMMANDS = {
    "api": ("dreamforge_api",),
    "worker": ("dreamforge_api.worker",),
    "runner": ("dreamforge_runner", "serve"),
    "child": ("dreamforge_runner.child",),
    "postgres": ("postgres", "-D"),
}


class System:
    """`dreamforge up` on a folder of its own."""

    def __init__(self, data: Path, *arguments: str | Path, environment: Mapping[str, str] | None = None) -> None:
        self.data = data
        self.up = Up(data, *arguments, environment=environment)

    def start(self) -> "System":
        self.up.start(120)
        self.client = Client(self.up.url)
        return self

    def end(self) -> None:
        if "client" in vars(self):
            self.client.http.close()
        self.up.end()

    def process(self, name: str) -> psutil.Process:
        """The live process that plays this part; the deadline covers one that is being started again."""
        found: psutil.Process = until(lambda: self._find(name), 30, f"a process {name}")
        return found

    def _find(self, name: str) -> psutil.Process | None:
        for process in self.up.children():
            try:
                line, called, parent = process.cmdline(), process.name(), process.ppid()
            except psutil.NoSuchProcess:
                continue
            if name == "redis" and "redis" in called:
                return process
            if name == "postgres" and parent != self._up_pid:
                continue  # a server process of a connection, not the postmaster
            words = _COMMANDS.get(name, ())
            if words and all(any(part.rpartition("/")[2] == word for part in line) for word in words):
                return process
        return None

    @property
    def _up_pid(self) -> int:
        assert self.up.process
        return self.up.process.pid

    @cached_property
    def settings(self) -> dict[str, str]:
        """The ``DF_*`` variables of the API process: where everything is, and the secrets."""
        return {name: value for name, value in self.process("api").environ().items() if name.startswith("DF_")}

    @property
    def redis_url(self) -> str:
        return self.settings["DF_REDIS_URL"]

    @property
    def secrets(self) -> set[str]:
        """What no log, metric or message may hold."""
        database, redis = self.settings["DF_DATABASE_URL"], self.settings["DF_REDIS_URL"]
        passwords = {url.rpartition("@")[0].rpartition(":")[2] for url in (database, redis)}
        return {self.settings["DF_SIGNING_KEY"], *passwords} - {""}

    def rows(self, query: str, *parameters: object) -> list[dict[str, Any]]:
        """What the database says."""
        url = self.settings["DF_DATABASE_URL"].replace("+psycopg", "", 1)
        with psycopg.connect(url, row_factory=dict_row) as connection:
            return connection.execute(query.encode(), parameters).fetchall()

    def folder(self, job: Mapping[str, Any]) -> Path:
        """Where the images of a job's one step lie."""
        return self.data / "objects" / keys.step_prefix(job["id"], "generate")

    def stored(self, job: Mapping[str, Any]) -> dict[str, int]:
        """File name and time of writing of every image stored so far."""
        folder = self.folder(job)
        names = [path for path in folder.glob("*") if keys.parse_artifact_key(path.name)] if folder.exists() else []
        return {path.name: path.stat().st_mtime_ns for path in names}

    def log_text(self) -> dict[str, str]:
        """Every log file, by name."""
        return {path.name: path.read_text() for path in sorted((self.data / "logs").glob("*.ndjson"))}

    def log_lines(self, name: str) -> list[dict[str, Any]]:
        """The lines of one process."""
        text = (self.data / "logs" / f"{name}.ndjson").read_text()
        return [json.loads(line) for line in text.split("\n") if line]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
