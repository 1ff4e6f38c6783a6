"""A look at everything: which RenderJobs need one of their own, whatever the watches told or did not tell.

It reads three lists, page by page, and keeps of each object only what decisions need; it never acts. The children are
listed before the RenderJobs: a child whose RenderJob is not in the later list has none.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from dreamforge import telemetry
from dreamforge.renderjob import names
from dreamforge.renderjob.conditions import Phase
from dreamforge.renderjob.resource import RenderJob
from dreamforge_operator import observed, plan
from dreamforge_operator.cluster import JOBS, PODS, RENDERJOBS, WORKLOADS, Cluster, Refused
from dreamforge_operator.news import Looked
from dreamforge_operator.observed import ChildJob, Pod, Workload
from dreamforge_operator.plan import Plan, Platform
from dreamforge_operator.reconcile import read, versions_of
from dreamforge_operator.situation import Observed
from dreamforge_operator.twins import Claim, Twins

Json = dict[str, Any]

log = telemetry.logger(__name__)

#: Whatever its versions say, a RenderJob is read in full once in so long.
_READ_AGAIN = timedelta(minutes=5)
_BREATH = 25
_OURS = f"{names.LABEL_MANAGED_BY}={names.OPERATOR_MANAGER}"


@dataclass
class Findings:
    """What a pass saw."""

    #: Names of RenderJobs that need a look.
    look_at: list[str] = field(default_factory=list)
    #: Children whose RenderJob is gone and whose owner reference was taken away.
    orphans: list[ChildJob] = field(default_factory=list)
    uids: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    #: What was read and needs nothing: a look of its own would find the same.
    settled: dict[str, Looked] = field(default_factory=dict)
    #: Names of RenderJobs that don't start; the cluster's warnings may have a new reason.
    waiting: list[str] = field(default_factory=list)
    rendering: set[str] = field(default_factory=set)
    phases: Counter[str] = field(default_factory=Counter)
    twins: Twins = field(init=False)

    def __post_init__(self) -> None:
        self.twins = Twins(self.look_at.append)


@dataclass
class Children:
    """By the uid of the RenderJob."""

    jobs: dict[str, ChildJob] = field(default_factory=dict)
    pods: dict[str, list[Pod]] = field(default_factory=dict)
    ownerless: dict[str, ChildJob] = field(default_factory=dict)
    #: By the uid of the child.
    workloads: dict[str, Workload] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Past:
    """What a pass found in a RenderJob that needed nothing, and until when that holds if nobody writes."""

    versions: tuple[str, ...]
    until: datetime
    phase: Phase
    rendering: str | None
    claim: tuple[UUID, Claim] | None


class FullPass:
    """Looks again and again; a RenderJob whose versions are those of the last pass is not read once more."""

    def __init__(self, cluster: Cluster, platform: Platform, tell: Callable[[RenderJob], None]) -> None:
        """``tell`` hears of every RenderJob that is not as it was."""
        self._cluster = cluster
        self._platform = platform
        self._tell = tell
        self._past: dict[str, _Past] = {}

    async def look(self, now: datetime) -> Findings:
        """One full pass. May raise ``ClusterUnavailable``."""
        children = await _children(self._cluster)
        found = Findings()
        async for page in self._cluster.pages(RENDERJOBS):
            for number, body in enumerate(page):
                if number % _BREATH == 0:
                    await asyncio.sleep(0)  # others wait for this thread
                self.look_at(body, children, now, found)
        for uid in self._past.keys() - found.uids:
            del self._past[uid]
        found.orphans = [job for uid, job in children.ownerless.items() if uid not in found.uids]
        return found

    def look_at(self, body: Json, children: Children, now: datetime, found: Findings) -> None:
        """Take one RenderJob into the findings."""
        meta = body["metadata"]
        uid, name = meta["uid"], meta["name"]
        found.uids.add(uid)
        found.names.add(name)
        job, pods = children.jobs.get(uid), children.pods.get(uid, ())
        workload = children.workloads.get(job.uid) if job else None
        live = [item.version for item in (job, workload, *pods) if item]
        versions = (meta["resourceVersion"], *live)
        past = self._past.get(uid)
        if past is None or past.versions != versions or now >= past.until:
            past = self._read(body, job, pods, workload, versions, now, found)
            self._past[uid] = past
        found.phases[past.phase] += 1
        if past.rendering is not None:
            found.rendering.add(past.rendering)
        if past.claim is not None and found.twins.note(*past.claim).uid != uid and not past.phase.terminal:
            found.look_at.append(name)

    def _read(
        self,
        body: Json,
        job: ChildJob | None,
        pods: Sequence[Pod],
        workload: Workload | None,
        versions: tuple[str, ...],
        now: datetime,
        found: Findings,
    ) -> _Past:
        rj, refusal = read(body)
        if rj.metadata.deletion_timestamp is None:
            self._tell(rj)
        seen = Observed(rj, job=job, pods=pods, workload=workload, refusal=refusal)
        made = plan.make(seen, self._platform, now)
        if _only_waits(rj, made):
            found.waiting.append(rj.metadata.name)
        elif made.actions:
            found.look_at.append(rj.metadata.name)
        else:
            found.settled[rj.metadata.name] = Looked(versions_of(seen), made.again_in)
        phase = rj.status.phase or Phase.PENDING
        return _Past(
            versions,
            now if made.actions or made.wants_events else _holds_until(rj, made, now),
            phase,
            str(rj.job_id) if phase is Phase.RENDERING else None,
            (rj.spec.job_id, Claim.of(rj)) if rj.spec.job_id is not None else None,
        )


def _only_waits(rj: RenderJob, made: Plan) -> bool:
    """Whether at most the reason is another one, which the cluster's warnings would have to tell."""
    words = all(isinstance(action, plan.WriteStatus) for action in made.actions)
    return made.wants_events and words and made.situation is not None and made.situation.phase is rj.status.phase


def _holds_until(rj: RenderJob, made: Plan, now: datetime) -> datetime:
    """When a clock may change the plan; and once in a while everything is read again."""
    until = now + _READ_AGAIN
    if made.again_in is not None:
        until = min(until, now + timedelta(seconds=made.again_in))
    if rj.status.completion_time is not None:
        until = min(until, rj.status.completion_time + timedelta(seconds=rj.spec.ttl_seconds_after_finished))
    return until


async def _children(cluster: Cluster) -> Children:
    children = Children()
    async for page in cluster.pages(JOBS, labels=_OURS):
        for body in page:
            uid = _label(body, names.LABEL_RENDERJOB_UID)
            job = observed.job_of(body)
            (children.jobs if job.owner_uid else children.ownerless)[uid] = job
    async for page in cluster.pages(PODS, labels=_OURS):
        for body in page:
            children.pods.setdefault(_label(body, names.LABEL_RENDERJOB_UID), []).append(observed.pod_of(body))
    if any(job.queued_by_kueue and not job.finished for job in children.jobs.values()):
        children.workloads = await _workloads(cluster)
    return children


async def _workloads(cluster: Cluster) -> dict[str, Workload]:
    """Kueue's accounts of Jobs; none for an operator that may not read them."""
    found: dict[str, Workload] = {}
    try:
        async for page in cluster.pages(WORKLOADS):
            found.update((_label(body, names.KUEUE_JOB_UID_LABEL), observed.workload_of(body)) for body in page)
    except Refused as error:
        log.warning("Workloads can't be listed", status=error.status, reason=error.reason)
    return found


def _label(body: Json, label: str) -> str:
    return str((body.get("metadata", {}).get("labels") or {}).get(label, ""))
