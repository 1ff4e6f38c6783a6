"""Dream Forge as ``kubectl apply -k`` brings it to a cluster, and the ways in that a person has."""

import hashlib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from dreamforge.renderjob import names
from tests.cluster.kubectl import Kubectl, Object, eventually
from tests.e2e.client import Client

ROOT = Path(__file__).resolve().parents[2]
OVERLAY = ROOT / "kustomize" / "overlays" / "e2e"
PLATFORM, RUNNERS = "dreamforge", "dreamforge-runners"
START_SECONDS = 180
_PASSWORD = "trial-only"
"""Stands in kustomize/components/trial-secrets for everybody to read."""


@dataclass(frozen=True)
class Installed:
    """The installation; ``platform`` and ``runners`` are kubectl in its two namespaces."""

    platform: Kubectl
    runners: Kubectl
    client: Client
    store: str
    """Where the way to the object store begins on this machine."""

    def picture(self, artifact: dict[str, Any]) -> bytes:
        """What the presigned link leads to. The signature covers the host, so the way in keeps its name."""
        link = urlsplit(artifact["url"])
        answer = httpx.get(f"{self.store}{link.path}?{link.query}", headers={"Host": link.netloc}, timeout=20)
        assert answer.status_code == 200, answer.text
        assert hashlib.sha256(answer.content).hexdigest() == artifact["sha256"]
        return answer.content

    def pods(self, job_id: str) -> list[Object]:
        """Of one job."""
        return list(self.runners.list("pods", f"{names.LABEL_JOB_ID}={job_id}"))

    def job_id(self, name: str) -> str:
        """Of a RenderJob, once the operator has told it and the API has heard of it, which may take a second."""
        found: str = eventually(f"{name} has an id", lambda: self.status(name).get("jobId"))
        eventually("the API knows it", lambda: self.client.http.get(f"/v1/jobs/{found}").status_code == 200)
        return found

    def status(self, name: str) -> Object:
        found: Object = self.runners.get("renderjob", name).get("status", {})
        return found

    def rendering(self, name: str) -> str:
        """Wait until a runner works on it and the API says so; the job's id."""
        eventually(f"{name} renders", lambda: self.status(name).get("phase") == "Rendering")
        job_id = self.job_id(name)
        eventually(
            "the API says so", lambda: self.client.http.get(f"/v1/jobs/{job_id}").json()["status"] == "running"
        )
        return job_id

    def redis(self, *command: str, user: str = "platform") -> str:
        """redis-cli in Redis' own pod."""
        login = ("redis-cli", "--no-auth-warning", "--user", user, "--pass", _PASSWORD)
        return self.platform("exec", "redis-0", "--", *login, *command)

    def restarts(self) -> dict[str, int]:
        """How often each container of the platform was started again."""
        return {
            pod["metadata"]["name"]: one["restartCount"]
            for pod in self.platform.list("pods")
            for one in pod["status"].get("containerStatuses", [])
        }

    def texts(self) -> dict[str, str]:
        """Everything that people with a right to look can read: objects but Secrets, events, logs of all pods."""
        found: dict[str, str] = {}
        for kubectl in (self.platform, self.runners):
            for kind in ("renderjobs", "jobs", "pods", "events", "configmaps"):
                found[f"{kubectl.namespace}/{kind}"] = kubectl("get", kind, "-o", "yaml")
            for pod in kubectl.list("pods"):
                name = pod["metadata"]["name"]
                found[f"{kubectl.namespace}/{name}"] = kubectl("logs", name)
        return found


@contextmanager
def install(kubectl: Kubectl) -> Iterator[Installed]:
    """Apply the e2e overlay and wait as a person would; namespaces go at the end, the kind of object stays."""
    everywhere = kubectl.within("")
    platform, runners = kubectl.within(PLATFORM), kubectl.within(RUNNERS)
    # A namespace of an installation before may still be on its way out.
    eventually("kubectl apply -k", lambda: everywhere("apply", "-k", OVERLAY), timeout=START_SECONDS)
    for kind, name, condition in (
        ("job", "dreamforge-migrate", "Complete"),
        *(("deployment", f"dreamforge-{part}", "Available") for part in ("api", "worker", "operator")),
    ):
        eventually(name, partial(waited, platform, kind, name, condition), timeout=START_SECONDS)
    try:
        with (
            platform.forward("svc/dreamforge-api", 8001) as api,
            platform.forward("svc/s3", 7070) as store,
            Client(api) as client,
        ):
            yield Installed(platform, runners, client, store)
    finally:
        for namespace in (RUNNERS, PLATFORM):
            everywhere.delete("namespace", namespace)


def waited(kubectl: Kubectl, kind: str, name: str, condition: str) -> bool:
    """Whether ``kubectl wait`` saw it within 20 s."""
    kubectl.wait_condition(kind, name, condition, timeout=20)
    return True


@contextmanager
def watched(kubectl: Kubectl, name: str, into: Path) -> Iterator[None]:
    """``kubectl get rj NAME -w`` into a file."""
    with into.open("w") as out, subprocess.Popen([*kubectl.command(), "get", "rj", name, "-w"], stdout=out) as child:
        try:
            yield
        finally:
            child.kill()
