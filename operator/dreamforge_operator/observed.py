"""What the cluster holds about one RenderJob, read from plain JSON into the few fields that decisions need.

Reading is forgiving: a field that is absent or odd is its zero value, because these objects are written by others
(the Job controller, the kubelet, Kueue), also in versions to come.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from dreamforge.renderjob import names

Json = Mapping[str, Any]

EPOCH = datetime.fromtimestamp(0, UTC)
RUNNER_CONTAINER = "runner"
INDEX_ANNOTATION = "batch.kubernetes.io/job-completion-index"
INDEX_FAILURES_ANNOTATION = "batch.kubernetes.io/job-index-failure-count"
INDEX_IGNORED_ANNOTATION = "batch.kubernetes.io/job-index-ignored-failure-count"


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition as Kubernetes writes them."""

    status: str
    reason: str = ""
    message: str = ""

    @property
    def true(self) -> bool:
        return self.status == "True"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a pod's runner container ended."""

    exit_code: int
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Pod:
    """One attempt of one shard."""

    name: str
    uid: str
    version: str = ""
    phase: str = "Pending"
    created: datetime = EPOCH
    started: datetime | None = None
    finished: datetime | None = None
    job_uid: str = ""
    index: int = 0
    #: Pods of the same shard before it that failed, and of those that do not count.
    index_failures: int = 0
    index_ignored: int = 0
    deleting: bool = False
    image: str = ""
    waiting: Condition | None = None
    ended: Ended | None = None
    running: bool = False
    status_reason: str = ""
    status_message: str = ""
    conditions: Mapping[str, Condition] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        """Its processes are gone."""
        return self.phase in ("Succeeded", "Failed")

    @property
    def done(self) -> bool:
        """Its runner has ended; a kubelet says so a moment before the pod is over."""
        return self.over or (self.ended is not None and not self.running)

    @property
    def disrupted(self) -> bool:
        """Ended by the cluster (drain, preemption, eviction), not by what it did."""
        target = self.conditions.get("DisruptionTarget")
        return target is not None and target.true


@dataclass(frozen=True, slots=True)
class ChildJob:
    """The ``batch/v1`` Job of a RenderJob, or another one of that name."""

    name: str
    uid: str
    owner_uid: str
    version: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    created: datetime = EPOCH
    suspend: bool = False
    deleting: bool = False
    parallelism: int = 1
    active: int = 0
    failed: int = 0
    succeeded: int = 0
    terminating: int = 0
    completed_indexes: str = ""
    failed_indexes: str = ""
    conditions: Mapping[str, Condition] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return _is_true(self.conditions, "Complete")

    @property
    def failure(self) -> Condition | None:
        """Why it failed for good, pods gone."""
        return self.conditions["Failed"] if _is_true(self.conditions, "Failed") else None

    @property
    def finished(self) -> bool:
        return self.complete or self.failure is not None

    @property
    def queued_by_kueue(self) -> bool:
        """Kueue owns its ``suspend``."""
        return names.KUEUE_QUEUE_LABEL in self.labels


@dataclass(frozen=True, slots=True)
class Workload:
    """Kueue's account of a Job."""

    name: str
    active: bool
    conditions: Mapping[str, Condition]
    version: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """A warning the cluster wrote about the Job or one of its pods."""

    about_uid: str
    reason: str
    message: str
    last_seen: datetime


def job_of(body: Json) -> ChildJob:
    """Read a Job."""
    meta, spec, status = _map(body, "metadata"), _map(body, "spec"), _map(body, "status")
    return ChildJob(
        name=str(meta.get("name", "")),
        uid=str(meta.get("uid", "")),
        version=str(meta.get("resourceVersion", "")),
        owner_uid=controller_uid(meta),
        labels=_map(meta, "labels"),
        created=when(meta.get("creationTimestamp")),
        suspend=bool(spec.get("suspend", False)),
        deleting="deletionTimestamp" in meta,
        parallelism=_int(spec, "parallelism"),
        active=_int(status, "active"),
        failed=_int(status, "failed"),
        succeeded=_int(status, "succeeded"),
        terminating=_int(status, "terminating"),
        completed_indexes=str(status.get("completedIndexes", "")),
        failed_indexes=str(status.get("failedIndexes", "")),
        conditions=conditions_of(status),
    )


def pod_of(body: Json) -> Pod:
    """Read a pod."""
    meta, status = _map(body, "metadata"), _map(body, "status")
    notes = _map(meta, "annotations")
    container = _runner_status(status)
    state = _map(container, "state")
    ended, waiting = _map(state, "terminated"), _map(state, "waiting")
    return Pod(
        name=str(meta.get("name", "")),
        uid=str(meta.get("uid", "")),
        version=str(meta.get("resourceVersion", "")),
        phase=str(status.get("phase", "Pending")),
        created=when(meta.get("creationTimestamp")),
        job_uid=controller_uid(meta),
        index=_int(notes, INDEX_ANNOTATION),
        index_failures=_int(notes, INDEX_FAILURES_ANNOTATION),
        index_ignored=_int(notes, INDEX_IGNORED_ANNOTATION),
        deleting="deletionTimestamp" in meta,
        image=_image(body),
        waiting=_reasoned(waiting) if waiting else None,
        ended=_ended(ended) if ended else None,
        running="running" in state,
        started=_started(state),
        finished=_moment(_map(state, "terminated").get("finishedAt")),
        status_reason=str(status.get("reason", "")),
        status_message=str(status.get("message", "")),
        conditions=conditions_of(status),
    )


def on_its_way(body: Json) -> bool:
    """Whether a Job or a pod says only that it has not begun: until patience ends, that is as it should be."""
    meta, status = _map(body, "metadata"), _map(body, "status")
    if "deletionTimestamp" in meta or _int(meta, "generation") > 1:
        return False  # somebody changed what was asked for
    if "phase" in status:
        return bool(status["phase"] == "Pending")
    return not status.keys() & {"conditions", "failed", "succeeded", "failedIndexes", "completedIndexes"}


def workload_of(body: Json) -> Workload:
    """Read a Kueue Workload."""
    spec = _map(body, "spec")
    return Workload(
        name=str(_map(body, "metadata").get("name", "")),
        active=bool(spec.get("active", True)),
        conditions=conditions_of(_map(body, "status")),
        version=str(_map(body, "metadata").get("resourceVersion", "")),
    )


def event_of(body: Json) -> Event:
    """Read a core/v1 Event, also one written through events.k8s.io."""
    last = body.get("lastTimestamp") or _map(body, "series").get("lastObservedTime") or body.get("eventTime")
    return Event(
        about_uid=str(_map(body, "involvedObject").get("uid", "")),
        reason=str(body.get("reason", "")),
        message=str(body.get("message", "")),
        last_seen=when(last or _map(body, "metadata").get("creationTimestamp")),
    )


def controller_uid(meta: Json) -> str:
    """The uid of the controlling owner; empty for an object that has none."""
    for owner in meta.get("ownerReferences") or ():
        if isinstance(owner, Mapping) and owner.get("controller"):
            return str(owner.get("uid", ""))
    return ""


def conditions_of(status: Json) -> dict[str, Condition]:
    """The conditions of a status by type."""
    return {
        str(item.get("type")): Condition(
            str(item.get("status", "Unknown")), str(item.get("reason") or ""), str(item.get("message") or "")
        )
        for item in status.get("conditions") or ()
        if isinstance(item, Mapping)
    }


def when(text: object) -> datetime:
    """A Kubernetes time; the epoch for none."""
    try:
        parsed = datetime.fromisoformat(str(text))
    except ValueError:
        return EPOCH
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def _is_true(conditions: Mapping[str, Condition], kind: str) -> bool:
    found = conditions.get(kind)
    return found is not None and found.true


def _map(body: Json, key: str) -> Json:
    value = body.get(key)
    return value if isinstance(value, Mapping) else {}


def _int(body: Json, key: str) -> int:
    try:
        return int(body.get(key) or 0)
    except (TypeError, ValueError):
        return 0


def _runner_status(status: Json) -> Json:
    return next((item for item in status.get("containerStatuses") or () if item.get("name") == RUNNER_CONTAINER), {})


def _image(body: Json) -> str:
    containers = _map(body, "spec").get("containers") or ()
    return next((str(item.get("image", "")) for item in containers if item.get("name") == RUNNER_CONTAINER), "")


def _started(state: Json) -> datetime | None:
    """When the container began its work. Of one that could not be started containerd says 0, and the kubelet 1970."""
    return _moment(_map(state, "running").get("startedAt") or _map(state, "terminated").get("startedAt"))


def _moment(text: object) -> datetime | None:
    return found if (found := when(text)) > EPOCH else None


def _reasoned(state: Json) -> Condition:
    return Condition("False", str(state.get("reason") or ""), str(state.get("message") or ""))


def _ended(state: Json) -> Ended:
    return Ended(_int(state, "exitCode"), str(state.get("reason") or ""), str(state.get("message") or ""))
