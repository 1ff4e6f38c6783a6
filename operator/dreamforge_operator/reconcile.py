"""One look at one RenderJob: read what is live, plan, act, until the plan is empty.

Level-based and idempotent: it may run at any time, as often as one likes, in two operators at once. Names decide who
made a child, ``resourceVersion`` who wrote a status; whoever loses looks again.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Protocol

from pydantic import ValidationError

from dreamforge import telemetry
from dreamforge.announcements import Progress
from dreamforge.crashpoints import CrashPoint, reach
from dreamforge.errors import DreamForgeError, ErrorCode
from dreamforge.renderjob import names
from dreamforge.renderjob.conditions import AcceptedReason
from dreamforge.renderjob.resource import RenderJob
from dreamforge.renderjob.status import UNSEEN, RenderJobStatus
from dreamforge_operator import observed, plan, status
from dreamforge_operator.cluster import (
    JOBS,
    PODS,
    RENDERJOBS,
    WORKLOADS,
    Cluster,
    ClusterUnavailable,
    Conflict,
    Json,
    Refused,
    select,
)
from dreamforge_operator.news import Looked, Version
from dreamforge_operator.observed import Workload
from dreamforge_operator.plan import Action, Plan, Platform
from dreamforge_operator.situation import Observed, Refusal
from dreamforge_operator.twins import Twins
from dreamforge_operator.warning_events import WarningEvents

log = telemetry.logger(__name__)

#: Actions of one look; each is followed by a fresh plan, so more would mean that plans contradict each other.
_MOST_ROUNDS = 6


class Gone(DreamForgeError):
    """The RenderJob was deleted while we looked."""


class Reports(Protocol):
    """What the rest of the system wants to hear of, and what it knows that the cluster does not."""

    def tell(self, rj: RenderJob) -> None:
        """The RenderJob is as it is now."""
        ...

    def refusal(self, uid: str) -> Refusal | None:
        """Ingest will not take the job."""
        ...

    def progress(self, job_id: str) -> Progress | None:
        """How far ingest says the job is, when it is time to write that down."""
        ...


GiveWay = Callable[[float], Awaitable[None]]


async def at_once(_: float) -> None:
    """Nobody is given way to."""


class Reconciler:
    """Brings the children of RenderJobs, and what is said of them, to where they should be."""

    def __init__(
        self,
        cluster: Cluster,
        platform: Platform,
        reports: Reports,
        twins: Twins,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._cluster = cluster
        self._warnings = WarningEvents(cluster)
        self._platform = platform
        self._reports = reports
        self._twins = twins
        self._clock = clock

    async def reconcile(self, name: str, fresh: Json | None = None, give_way: GiveWay = at_once) -> Looked:
        """Look at one RenderJob; ``fresh`` is how a watch has just seen it, which saves reading it once more.

        ``give_way``, told what making a child took in seconds, is waited for before anything is said of that child.
        Raises ``ClusterUnavailable`` when the cluster did not answer: look again later.
        """
        body = fresh or await self._cluster.get(RENDERJOBS, name)
        if body is None:
            await self._end_orphans(name)
            return Looked()
        with telemetry.bound(renderjob=name, job_id=body.get("status", {}).get("jobId")):
            try:
                return await self._settle(body, give_way)
            except Gone:
                await self._end_orphans(name)
                return Looked()

    async def _settle(self, body: Json, give_way: GiveWay) -> Looked:
        seen = await self._observe(body, shortcut=True)
        for _ in range(_MOST_ROUNDS):
            made = plan.make(seen, self._platform, self._clock())
            if made.wants_events and not seen.events:
                seen = await self._with_events(seen)
                made = plan.make(seen, self._platform, self._clock())
            if not made.actions:
                self._reports.tell(seen.rj)
                return Looked(versions_of(seen), made.again_in)
            began = time.monotonic()
            seen = await self._act(seen, made)
            if isinstance(made.actions[0], plan.CreateJob):
                await give_way(time.monotonic() - began)
        raise ClusterUnavailable("the RenderJob does not settle")

    async def _act(self, seen: Observed, made: Plan) -> Observed:
        """Do the first action; what is then observed."""
        action = made.actions[0]
        try:
            return await self._do(seen, action)
        except Conflict:
            fresh = await self._cluster.get(RENDERJOBS, seen.rj.metadata.name)
            if fresh is None:
                raise Gone from None
            return await self._observe(fresh)
        except Refused as error:
            if not isinstance(action, plan.CreateJob):
                raise
            log.warning("the cluster refuses the child job", status=error.status, reason=error.reason)
            refusal = Refusal(
                AcceptedReason.REFUSED_BY_CLUSTER, f"The cluster refuses the child Job: {error.message}"
            )
            return replace(seen, refusal=refusal)

    async def _do(self, seen: Observed, action: Action) -> Observed:
        rj = seen.rj
        match action:
            case plan.CreateJob(body):
                self._reports.tell(rj)
                reach(CrashPoint.OPERATOR_CHILD_PLANNED)
                made = await self._cluster.create(JOBS, body)
                log.info("child job made", child=rj.child_name)
                reach(CrashPoint.OPERATOR_JOB_CREATED)
                return replace(seen, job=observed.job_of(made))
            case plan.PatchJob(name, _, change):
                patched = await self._cluster.patch(JOBS, name, change)
                reach(CrashPoint.OPERATOR_JOB_PATCHED)
                return replace(seen, job=observed.job_of(patched) if patched else None)
            case plan.DeleteJob(name, uid):
                await self._cluster.delete(JOBS, name, uid=uid)
                log.info("child job deleted", child=name)
                reach(CrashPoint.OPERATOR_JOB_DELETED)
                return await self._observe(await self._again(rj))
            case plan.SetWorkloadActive(name, active):
                workload = await self._cluster.patch(WORKLOADS, name, {"spec": {"active": active}})
                return replace(seen, workload=observed.workload_of(workload) if workload else None)
            case plan.WriteStatus(after):
                written = await self._write(rj, after)
                return replace(seen, rj=written)
            case plan.DeleteSelf():
                await self._cluster.delete(RENDERJOBS, rj.metadata.name, uid=rj.metadata.uid)
                raise Gone

    async def _write(self, rj: RenderJob, after: RenderJobStatus) -> RenderJob:
        """Raises ``Conflict`` when somebody wrote since: what was planned may not hold any more."""
        change = {
            "metadata": {"uid": rj.metadata.uid, "resourceVersion": rj.metadata.resource_version},
            "status": status.change(rj.status, after),
        }
        written = await self._cluster.patch(RENDERJOBS, rj.metadata.name, change, subresource="status")
        reach(CrashPoint.OPERATOR_STATUS_WRITTEN)
        if written is None:
            raise Conflict("gone")
        log.info("status written", phase=after.phase)
        return read(written)[0]

    async def _again(self, rj: RenderJob) -> Json:
        body = await self._cluster.get(RENDERJOBS, rj.metadata.name)
        if body is None:
            raise Gone
        return body

    async def _observe(self, body: Json, *, shortcut: bool = False) -> Observed:
        """All that is live of a RenderJob."""
        rj, invalid = read(body)
        uid = rj.metadata.uid
        refusal = invalid or await self._older_twin(rj) or self._reports.refusal(uid)
        if shortcut and rj.status.observed_generation == UNSEEN:
            # Nobody has seen it: it has no children. If it has, their names are taken, and we look again.
            return Observed(rj, refusal=refusal)
        job = await self._cluster.get(JOBS, rj.child_name)
        pods = await select(self._cluster, PODS, labels=f"{names.LABEL_RENDERJOB_UID}={uid}")
        child = observed.job_of(job) if job else None
        workload = None
        if child is not None and child.queued_by_kueue and child.owner_uid == uid and not child.finished:
            workload = await self._workload(child.uid)
        return Observed(
            rj,
            job=child,
            pods=[observed.pod_of(pod) for pod in pods],
            workload=workload,
            refusal=refusal,
            progress=self._reports.progress(str(rj.job_id)),
        )

    async def _workload(self, job_uid: str) -> Workload | None:
        """Kueue's account of the child; ``None`` also for an operator that may not read it."""
        try:
            found = await select(self._cluster, WORKLOADS, labels=f"{names.KUEUE_JOB_UID_LABEL}={job_uid}")
        except Refused as error:
            log.warning("Workloads can't be read", status=error.status, reason=error.reason)
            return None
        return observed.workload_of(found[0]) if found else None

    async def _older_twin(self, rj: RenderJob) -> Refusal | None:
        """Why this RenderJob may not have its job id."""
        job_id, uid = rj.spec.job_id, rj.metadata.uid
        while (first := self._twins.claim(rj)) is not None and first.uid != uid and job_id is not None:
            other = await self._cluster.get(RENDERJOBS, first.name)
            if other is not None and other["metadata"]["uid"] == first.uid:
                message = f"RenderJob {first.name} is older and has the same jobId; delete one of the two"
                return Refusal(AcceptedReason.DUPLICATE_JOB_ID, message, ErrorCode.DISPATCH_REFUSED)
            self._twins.forget(job_id, first.uid)
        return None

    async def _with_events(self, seen: Observed) -> Observed:
        uids = [pod.uid for pod in seen.pods if not pod.over] + ([seen.child.uid] if seen.child else [])
        return replace(seen, events=await self._warnings.about(uids))

    async def _end_orphans(self, name: str) -> None:
        """A RenderJob deleted with ``--cascade=orphan`` leaves a child without an owner: nothing may run on."""
        for item in await select(self._cluster, JOBS, labels=f"{names.LABEL_RENDERJOB}={name}"):
            child = observed.job_of(item)
            if not child.owner_uid and not child.deleting and name_of_owner(item) == name:
                await self._cluster.delete(JOBS, child.name, uid=child.uid)
                log.info("child job of a deleted RenderJob deleted", child=child.name)


def read(body: Json) -> tuple[RenderJob, Refusal | None]:
    """The RenderJob; with a refusal when its spec breaks a rule that the API server could not check."""
    try:
        return RenderJob.model_validate(body), None
    except ValidationError as error:
        refusal = Refusal(AcceptedReason.INVALID_INPUT, plan.invalid_message(error), ErrorCode.INVALID_INPUT)
        spec: dict[str, Any] = {key: body["spec"][key] for key in ("jobId", "managedBy") if key in body["spec"]}
        return RenderJob.model_validate({**body, "spec": spec}), refusal


def versions_of(seen: Observed) -> frozenset[Version]:
    """All that the plan was made from."""
    rj = Version(seen.rj.metadata.uid, seen.rj.metadata.resource_version)
    job = [Version(seen.job.uid, seen.job.version)] if seen.job is not None else []
    return frozenset([rj, *job, *(Version(pod.uid, pod.version) for pod in seen.pods)])


def name_of_owner(body: Json) -> str:
    """The RenderJob a child was made for, by our label; empty for a Job that is not ours."""
    labels = body.get("metadata", {}).get("labels") or {}
    ours = labels.get(names.LABEL_MANAGED_BY) == names.OPERATOR_MANAGER
    return str(labels.get(names.LABEL_RENDERJOB, "")) if ours else ""
