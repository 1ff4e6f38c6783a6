"""Objects as the API server holds them, and a model of a cluster's state for plans to act on."""

import copy
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from dreamforge.renderjob import names
from dreamforge_operator import observed, plan, status
from dreamforge_operator.plan import Platform
from dreamforge_operator.reconcile import read
from dreamforge_operator.runtimes import Runtimes
from dreamforge_operator.situation import Observed

Json = dict[str, Any]

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
UID = "54b3afc8-f92c-416d-942a-ed1d5cac56b7"
PLATFORM = Platform(Runtimes(), "runner:1", "runner-env")
DEFAULTS: Json = {"modelRef": {"id": "sketch"}, "input": {"prompt": "a castle"}}


def stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def renderjob(spec: Json | None = None, *, status: Json | None = None, **meta: Any) -> Json:
    """A RenderJob that nobody has seen, unless ``status`` says otherwise."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {
            "name": "castle",
            "namespace": "runners",
            "uid": UID,
            "generation": 1,
            "resourceVersion": "1",
            "creationTimestamp": stamp(START),
            **meta,
        },
        "spec": {**DEFAULTS, **(spec or {})},
        "status": status or {"observedGeneration": -1},
    }


def pod(index: int = 0, *, number: int = 0, created: datetime = START, **status: Any) -> Json:
    """A pod of the child; ``number`` tells attempts apart."""
    return {
        "metadata": {
            "name": f"castle-54b3afc8-{index}-{number}",
            "uid": f"pod-{index}-{number}",
            "creationTimestamp": stamp(created),
            "annotations": {
                observed.INDEX_ANNOTATION: str(index),
                observed.INDEX_FAILURES_ANNOTATION: str(number),
            },
            "ownerReferences": [{"controller": True, "uid": "job-1"}],
        },
        "spec": {"containers": [{"name": "runner", "image": "runner:1"}]},
        "status": {"phase": "Pending", **status},
    }


def container(**state: Any) -> Json:
    """The part of a pod's status about its runner."""
    return {"containerStatuses": [{"name": "runner", "state": state}]}


def running(started: datetime = START) -> Json:
    return {"phase": "Running", **container(running={"startedAt": stamp(started)})}


def ended(exit_code: int, message: str = "", reason: str = "", at: datetime = START) -> Json:
    times = {"startedAt": stamp(at), "finishedAt": stamp(at)}
    said = {"exitCode": exit_code, "message": message, "reason": reason, **times}
    return {"phase": "Failed" if exit_code else "Succeeded", **container(terminated=said)}


def verdict(**fields: Any) -> str:
    return json.dumps({"v": 1, "class": None, "exit_code": 0, "items_done": 0, "items_failed": 0, **fields})


def true(kind: str, reason: str = "", message: str = "") -> Json:
    return {"type": kind, "status": "True", "reason": reason, "message": message}


class World:
    """What an API server would hold; actions of plans change it, tests play everybody else."""

    def __init__(self, spec: Json | None = None, **meta: Any) -> None:
        self.now = START
        self.body: Json | None = renderjob(spec, **meta)
        self.job: Json | None = None
        self.workload: Json | None = None
        self.pods: list[Json] = []
        self.events: list[Json] = []
        self.writes: list[str] = []
        self.jobs_made = 0

    @property
    def rj(self) -> Json:
        assert self.body is not None
        return self.body

    @property
    def child(self) -> Json:
        assert self.job is not None
        return self.job

    @property
    def has_child(self) -> bool:
        return self.job is not None

    @property
    def status(self) -> Json:
        found: Json = self.rj["status"]
        return found

    @property
    def phase(self) -> str | None:
        return self.status.get("phase")

    def condition(self, kind: str) -> Json:
        return next((item for item in self.status.get("conditions", []) if item["type"] == kind), {})

    def seen(self) -> Observed:
        rj, refusal = read(self.rj)
        return Observed(
            rj,
            job=observed.job_of(self.job) if self.job else None,
            pods=[observed.pod_of(item) for item in self.pods],
            events=[observed.event_of(item) for item in self.events],
            workload=observed.workload_of(self.workload) if self.workload else None,
            refusal=refusal,
        )

    def planned(self) -> plan.Plan:
        return plan.make(self.seen(), PLATFORM, self.now)

    def settle(self) -> int:
        """Look until there is nothing to do, as the reconciler does; how many actions that took."""
        for count in range(7):
            if self.body is None:
                return count
            actions = self.planned().actions
            if not actions:
                return count
            self.act(actions[0])
        raise AssertionError(f"does not settle: {self.writes[-6:]}")

    def act(self, action: plan.Action) -> None:
        self.writes.append(type(action).__name__)
        match action:
            case plan.CreateJob(body):
                assert self.job is None, "the name is taken"
                self.jobs_made += 1
                self.job = copy.deepcopy(body)
                self.job["metadata"] |= {"uid": f"job-{self.jobs_made}", "creationTimestamp": stamp(self.now)}
                self.job["status"] = {}
            case plan.PatchJob(_, uid, change):
                assert self.child["metadata"]["uid"] == uid
                _merge(self.child, change)
                if self.child["spec"]["suspend"]:
                    self.pods = [item for item in self.pods if item["status"]["phase"] in ("Succeeded", "Failed")]
            case plan.DeleteJob(_, uid):
                assert self.child["metadata"]["uid"] == uid
                self.job = None
                for item in self.pods:
                    item["metadata"]["deletionTimestamp"] = stamp(self.now)
            case plan.WriteStatus(after):
                rj, _ = read(self.rj)
                _merge(self.status, json.loads(json.dumps(status.change(rj.status, after))))
            case plan.DeleteSelf():
                self.body = None
            case plan.SetWorkloadActive():
                raise AssertionError("there is no Kueue here")

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def edit(self, **spec: Any) -> None:
        """As a person does it."""
        self.rj["spec"].update(spec)
        self.rj["metadata"]["generation"] += 1

    def make_pod(self, index: int = 0, **status: Any) -> None:
        """As the Job controller does it."""
        number = sum(item["metadata"]["uid"].startswith(f"pod-{index}-") for item in self.pods)
        self.pods.append(pod(index, number=number, created=self.now, **status))

    def run_pods(self) -> None:
        for item in self.pods:
            if item["status"]["phase"] == "Pending":
                item["status"] = running(self.now)

    def end_pods(self, exit_code: int = 0, **words: Any) -> None:
        for item in self.pods:
            if item["status"]["phase"] in ("Pending", "Running"):
                item["status"] = ended(exit_code, verdict(exit_code=exit_code, **words), at=self.now)

    def end_job(self, kind: str = "Complete", reason: str = "") -> None:
        self.child["status"] = {"conditions": [true(kind, reason)]}

    def drop_pods(self) -> None:
        """Their processes are gone, and so are they."""
        self.pods = [item for item in self.pods if "deletionTimestamp" not in item["metadata"]]


def _merge(target: Json, change: Json) -> None:
    for key, value in change.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = value
