"""A real API server with real controllers, namespaces on it, and the two that follow RenderJobs there.

The controllers get more requests a second than the 20 of their default, which would be all that either side shows.
The API server writes an audit log of every write, for both sides.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import psutil

from benchmarks.harness import NotMeasuredError
from benchmarks.operator_client import Json
from benchmarks.processes import Program, program
from dreamforge.renderjob.resource import RenderJob
from dreamforge.spec import ModelRef, RenderParams, RenderSpec
from dreamforge_api.execution import orders
from dreamforge_api.worker.ingest import new_id
from dreamforge_operator import plan, runtimes
from dreamforge_operator.settings import OperatorSettings
from tests.cluster import commands, control_plane
from tests.cluster.conftest import fresh_namespace
from tests.cluster.control_plane import ControlPlane
from tests.cluster.kubectl import Kubectl
from tests.cluster.operators import ACCOUNT, Operator, account_kubeconfig, install_crd
from tests.cluster.process import ChildProcess

_WRITES = ["create", "update", "patch", "delete", "deletecollection"]
_AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "omitManagedFields": True,
    "rules": [{"level": "Metadata", "verbs": _WRITES, "userGroups": ["system:serviceaccounts"]}, {"level": "None"}],
}


class Bed:
    """One API server and what runs on it."""

    def __init__(self, folder: Path, redis_url: str, *, controllers: bool = True) -> None:
        self.folder = folder
        self._redis_url = redis_url
        self._audit = folder / "audit.log"
        policy = folder / "audit-policy.json"
        policy.write_text(json.dumps(_AUDIT))
        flags = (f"--audit-policy-file={policy}", f"--audit-log-path={self._audit}", "--audit-log-mode=batch")
        self.plane = ControlPlane(folder / "plane", controllers=controllers, flags=flags)
        if controllers:
            swift = ["--kube-api-qps=1000", "--kube-api-burst=1000", "--concurrent-job-syncs=20"]
            command = [*commands.controller_manager(self.plane.folder, self.plane.kubeconfig), *swift]
            self.plane.controllers = ChildProcess("controllers", command, folder / "controllers.log")

    def namespace(self) -> Kubectl:
        """A new one, with nothing in it."""
        return fresh_namespace(Kubectl(self.plane.kubeconfig))

    @contextmanager
    def operator(self, kubectl: Kubectl) -> Iterator[psutil.Process]:
        """The operator as its image runs it, ready; as a process to be measured."""
        settings = {"DF_OPERATOR_PASS_SECONDS": _default("operator_pass_seconds"), "DF_REDIS_URL": self._redis_url}
        folder = self.folder / f"operator-{uuid4().hex[:8]}"
        running = Operator(kubectl, folder, PYTHONPATH=os.environ.get("PYTHONPATH", ""), **settings)
        running.start()
        try:
            running.wait_ready()
            yield running.meter
        finally:
            running.stop()

    @contextmanager
    def bare(self, kubectl: Kubectl) -> Iterator[Program]:
        """The raw watcher, with the operator's account."""
        folder = self.folder / f"bare-{uuid4().hex[:8]}"
        folder.mkdir()
        template = folder / "job.json"
        template.write_text(job_template(kubectl.namespace))
        kubeconfig = account_kubeconfig(kubectl, folder)
        argv = ["benchmarks.operator_bare", str(kubeconfig), kubectl.namespace, str(template)]
        with program("bare", argv, folder, {}) as running:
            yield running

    def writes(self, namespace: str) -> list[str]:
        """Verb and resource of every write of the namespace's operator, by the API server's own account."""
        user = f"system:serviceaccount:{namespace}:{ACCOUNT}"
        found = []
        for line in self._audit.read_text().splitlines():
            event = json.loads(line)
            if event["user"]["username"] == user and event["verb"] in _WRITES:
                about = event["objectRef"]
                found.append(" ".join(filter(None, (event["verb"], about["resource"], about.get("subresource")))))
        return found


@contextmanager
def bed(folder: Path, redis_url: str, *, controllers: bool = True) -> Iterator[Bed]:
    """A :class:`Bed` for the length of the block. Raises ``NotMeasuredError`` where it can't be started."""
    if reason := control_plane.available(controllers=controllers):
        raise NotMeasuredError(reason)
    folder.mkdir()
    made = Bed(folder, redis_url, controllers=controllers)
    made.plane.start()
    try:
        install_crd(Kubectl(made.plane.kubeconfig))
        yield made
    finally:
        made.plane.stop()


def render_job(job_id: UUID | None = None) -> Json:
    """A RenderJob as the API's executor makes it."""
    spec = RenderSpec(
        job_id=job_id or new_id(),
        created_at=datetime.now(UTC),
        correlation_id="bench",
        params=RenderParams(prompt="a lighthouse"),
        model=ModelRef(id="sketch", name="Sketch", kind="sketch", version="1"),
    )
    return orders.renderjob(spec, orders.spec_hash(spec), backoff_limit=2, queue=None)


def job_template(namespace: str) -> str:
    """The child Job that the operator makes, with places to fill in."""
    body, uid = render_job(), str(uuid4())
    about = {"uid": uid, "namespace": namespace, "creationTimestamp": datetime.now(UTC).isoformat()}
    rj = RenderJob.model_validate({**body, "metadata": {**body["metadata"], **about}})
    made = plan.child_manifest(rj, plan.Platform(runtimes.load(None), _default("runner_image")))
    text = json.dumps(made)
    for value, place in ((rj.metadata.name, "@NAME"), (uid, "@UID"), (str(rj.job_id), "@JOB")):
        text = text.replace(value, place)
    return text


def _default(setting: str) -> str:
    return str(OperatorSettings.model_fields[setting].default)
