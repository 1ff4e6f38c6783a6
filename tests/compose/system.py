"""The system in containers, as ``make up`` starts it, under a name and on ports of the tests' own."""

import json
import os
import secrets
import signal
import subprocess
from pathlib import Path
from typing import Any

import httpx

from tests.api_server import free_port
from tests.cluster.parts import ROOT
from tests.compose.engine import Engine
from tests.e2e.client import Client
from tests.servers.stack import clean_environment, until

ONE_SHOT = "migrate"
CHECKED = {"postgres", "redis", "s3", "api", "worker"}
"""Services with a health check."""
SERVICES = CHECKED | {"runner"}
_SECONDS = 240


class Composition:
    """One project of Compose."""

    def __init__(self, engine: Engine, variables: dict[str, str]) -> None:
        self.engine = engine
        self.name = f"dreamforge-test-{secrets.token_hex(4)}"
        self.password = secrets.token_hex(16)
        self.ports = {service: free_port() for service in ("api", "s3", "postgres", "redis")}
        published = {f"DF_COMPOSE_{service.upper()}_PORT": str(port) for service, port in self.ports.items()}
        own = {
            "COMPOSE_PROJECT_NAME": self.name,
            "DF_COMPOSE_PASSWORD": self.password,
            "DF_RUNNER_BACKEND": "sketch",
            "GPU": "",
            "MAKEFLAGS": "",
        }
        self._environment = clean_environment(**engine.environment, **variables, **published, **own)
        self.client = Client(f"http://127.0.0.1:{self.ports['api']}")

    def make(self, target: str, *arguments: str) -> str:
        """What a target of the Makefile prints; it must succeed."""
        words = ["make", "--no-print-directory", target, f"ARGS={' '.join(arguments)}"]
        done = subprocess.run(
            words, cwd=ROOT, env=self._environment, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
        assert done.returncode == 0, f"{' '.join(words)}:\n{(done.stdout + done.stderr)[-3000:]}\n{self.last_words()}"
        return done.stdout

    def models(self, *arguments: str, mounted: Path | None = None) -> str:
        """What the command that fetches models prints, run as the page says; ``mounted`` is at /here."""
        mount = [] if mounted is None else ["--volume", f"{mounted}:/here:ro"]
        return self._compose("run", "--rm", "-T", *mount, "models", *arguments)

    def inside(self, service: str, *command: str) -> str:
        """What a program prints that is run in a service's container."""
        return self._compose("exec", "-T", service, *command)

    def _compose(self, *arguments: str) -> str:
        command = [str(ROOT / "scripts" / "compose.sh"), *arguments]
        done = subprocess.run(
            command, env=self._environment, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def last_words(self) -> str:
        """The end of every log, for an error message."""
        return self._logs("--tail", "8")

    def logs(self, service: str) -> list[str]:
        """Every line of one service."""
        return self._logs("--no-log-prefix", service).splitlines()

    def _logs(self, *arguments: str) -> str:
        command = [str(ROOT / "scripts" / "compose.sh"), "logs", "--no-color", *arguments]
        done = subprocess.run(
            command, env=self._environment, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
        return done.stdout + done.stderr

    def containers(self) -> dict[str, dict[str, Any]]:
        """What `status` tells of each service."""
        lines = self.make("status", "--all", "--format", "json").splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return {container["Service"]: container for container in found}

    def state(self, service: str) -> dict[str, Any]:
        """The engine's view: status, health, pid, start."""
        state: dict[str, Any] = self.engine.container(self.identity(service))["State"]
        return state

    def identity(self, service: str) -> str:
        """Of the container of a service."""
        identity: str = self.containers()[service]["ID"]
        return identity

    def kill(self, service: str) -> None:
        """As a crash does it (after an engine's own `kill` nothing is restarted); returns when it is back."""
        identity = self.identity(service)
        before = self.engine.container(identity)["State"]
        os.kill(before["Pid"], signal.SIGKILL)

        def back() -> bool:
            state = self.engine.container(identity)["State"]
            health = (state.get("Health") or {}).get("Status")
            return bool(state["Running"]) and state["Pid"] != before["Pid"] and health in {None, "", "healthy"}

        until(back, 90, f"the return of {service}")

    def left(self) -> list[str]:
        """What a project may leave behind."""
        return [
            *self.containers(),
            *self.engine.left("volumes", self.name),
            *self.engine.left("networks", self.name),
        ]

    def close(self) -> None:
        self.client.http.close()
        self.make("down", "--volumes", "--timeout", "5")


def fetched(client: Client, job_id: str) -> list[tuple[dict[str, Any], bytes]]:
    """Every artifact with the bytes behind its link."""
    artifacts = client.artifacts(job_id)
    return [(artifact, httpx.get(artifact["url"], timeout=20).raise_for_status().content) for artifact in artifacts]
