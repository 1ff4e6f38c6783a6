"""What is going on with a RenderJob: from what was observed to a phase and the reasons behind it. Pure.

The order of the questions in :func:`assess` is the order of precedence: what has ended stays ended, a finished child
beats a cancel, a cancel beats everything that has not happened yet.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from dreamforge.announcements import Progress
from dreamforge.errors import ErrorCode
from dreamforge.renderjob.conditions import AcceptedReason, AdmittedReason, FailedReason, Phase, PodReadyReason
from dreamforge.renderjob.resource import RenderJob
from dreamforge.renderjob.status import FailureStatus
from dreamforge_operator import admission, failures
from dreamforge_operator.diagnosis import PREPARING, Cause, diagnose
from dreamforge_operator.observed import ChildJob, Event, Pod, Workload

#: How long a start may take before its state is worth a write; within 30 s a person must know what is wrong.
PATIENCE = timedelta(seconds=10)


@dataclass(frozen=True)
class Refusal:
    """Why the job can't be taken as it is; ``code`` is given when that is final."""

    reason: AcceptedReason
    message: str
    code: ErrorCode | None = None


@dataclass(frozen=True)
class Observed:
    """A RenderJob and everything live that belongs to it."""

    rj: RenderJob
    job: ChildJob | None = None
    pods: Sequence[Pod] = ()
    events: Sequence[Event] = ()
    workload: Workload | None = None
    #: Found out beside the cluster's objects: a bad input, an older twin, an API server that said no.
    refusal: Refusal | None = None
    progress: Progress | None = None

    @property
    def child(self) -> ChildJob | None:
        """The Job of the child's name if it is ours."""
        return self.job if self.job is not None and self.job.owner_uid == self.rj.metadata.uid else None

    @property
    def stranger(self) -> bool:
        """Somebody else's Job has the name."""
        return self.job is not None and self.child is None

    @property
    def live_pods(self) -> list[Pod]:
        """Pods whose processes may still run."""
        return [pod for pod in self.pods if not pod.over]


@dataclass(frozen=True)
class Situation:
    """The answer: all that the status says about where the job is."""

    phase: Phase
    accepted: AcceptedReason = AcceptedReason.VALID
    accepted_message: str = ""
    admitted: AdmittedReason = AdmittedReason.NOT_QUEUED
    admitted_message: str = ""
    pod: Cause = PREPARING
    message: str = ""
    failure: FailureStatus | None = None
    #: The cluster's warnings may say why nothing runs.
    events_help: bool = False


def assess(seen: Observed, now: datetime) -> Situation:
    """Where the job is. Not for a job that has ended before (its status stands) or is being deleted."""
    child = seen.child
    admitted, message = _admitted(seen, now)
    base = replace(_accepted(seen), admitted=admitted, admitted_message=message)
    if child is not None and child.complete:
        return replace(base, phase=Phase.SUCCEEDED, pod=Cause(PodReadyReason.FINISHED, "Every pod has finished"))
    if seen.rj.canceled:
        return _canceled(base, seen)
    if child is not None and child.failure is not None:
        return _failed(base, failures.of_job(child.failure, seen.pods))
    if seen.refusal is not None and seen.refusal.code is not None:
        reason = failures.reason_of(seen.refusal.code)
        return _failed(base, failures.Found(seen.refusal.code, reason, seen.refusal.message))
    if seen.rj.spec.suspend:
        return _suspended(base, seen)
    if _too_late(seen, now):
        return _failed(base, _late(seen, message))
    if seen.refusal is not None or seen.stranger:
        return replace(base, phase=Phase.PENDING, message=base.accepted_message)
    return _working(base, seen, now)


def start_deadline(rj: RenderJob) -> datetime | None:
    """When the first pod must run, from an object that the API server stored."""
    created = rj.metadata.creation_timestamp
    return None if created is None else created + timedelta(seconds=rj.spec.limits.start_deadline_seconds)


def _accepted(seen: Observed) -> Situation:
    if seen.refusal is not None:
        return Situation(Phase.PENDING, seen.refusal.reason, seen.refusal.message)
    if seen.stranger and seen.job is not None:
        message = (
            f"A Job named {seen.job.name} exists and belongs to someone else; delete it, or give this RenderJob "
            "another name"
        )
        return Situation(Phase.PENDING, AcceptedReason.NAME_COLLISION, message)
    if seen.rj.spec.deletion_policy.value == "DeleteSelf" and seen.rj.git_managed:
        message = (
            "deletionPolicy DeleteSelf is not followed: Flux or Argo CD would make this object again, and render"
        )
        return Situation(Phase.PENDING, AcceptedReason.DELETION_POLICY_IGNORED, message)
    return Situation(Phase.PENDING, AcceptedReason.VALID, "The RenderJob is valid")


def _admitted(seen: Observed, now: datetime) -> tuple[AdmittedReason, str]:
    child = seen.child
    if child is None:
        return admission.NOT_QUEUED if seen.rj.spec.queue is None else admission.NO_CHILD
    if not child.queued_by_kueue:
        return admission.NOT_QUEUED
    if child.finished:
        return admission.ADMITTED  # or nothing of it would have run; its Workload may be gone
    if seen.workload is None:
        return admission.NOT_YET_SEEN if now - child.created < PATIENCE else admission.NO_WORKLOAD
    return admission.read(seen.workload)


def _canceled(base: Situation, seen: Observed) -> Situation:
    gone = not seen.live_pods and (seen.child is None or seen.child.finished)
    if gone:
        stopped = Cause(PodReadyReason.STOPPED, "No pod is left")
        return replace(base, phase=Phase.CANCELED, pod=stopped, message="Canceled as asked")
    pod = Cause(PodReadyReason.STOPPED, "The pods are being stopped")
    return replace(base, phase=Phase.CANCELING, pod=pod, message="Canceled as asked; the pods are being stopped")


def _failed(base: Situation, found: failures.Found) -> Situation:
    pod = Cause(PodReadyReason.FAILED, "No pod will be started")
    return replace(base, phase=Phase.FAILED, pod=pod, message=found.message, failure=found.status())


def _suspended(base: Situation, seen: Observed) -> Situation:
    stopping = bool(seen.live_pods)
    message = "Suspended as asked; set suspend to false to go on" + (
        "; the pods are being stopped" if stopping else ""
    )
    pod = Cause(PodReadyReason.STOPPED, "No pod runs while the job is suspended")
    return replace(base, phase=Phase.SUSPENDED, pod=pod, message=message)


def _too_late(seen: Observed, now: datetime) -> bool:
    started = seen.rj.status.start_time is not None or any(pod.started for pod in seen.pods)
    deadline = start_deadline(seen.rj)
    return not started and deadline is not None and now >= deadline


def _late(seen: Observed, queued: str) -> failures.Found:
    cause = diagnose(seen.child, seen.pods, seen.events)
    why = "" if cause.benign else f": {cause.message}"
    if seen.child is not None and seen.child.suspend and seen.child.queued_by_kueue:
        why = f": {queued}"
    seconds = seen.rj.spec.limits.start_deadline_seconds
    message = f"No pod ran within {seconds} s of the RenderJob's creation{why}"[:1000]
    return failures.Found(ErrorCode.JOB_TIMEOUT, FailedReason.START_DEADLINE_EXCEEDED, message)


def _working(base: Situation, seen: Observed, now: datetime) -> Situation:
    child = seen.child
    if any(pod.running and not pod.deleting for pod in seen.pods):
        pod = Cause(PodReadyReason.RUNNING, "A runner works")
        return replace(base, phase=Phase.RENDERING, pod=pod, message="The images are being rendered")
    if _between_two_pods(seen, now):
        return replace(base, phase=Phase.RENDERING, pod=Cause(PodReadyReason.RUNNING, "A runner has just ended"))
    if child is not None and child.suspend and child.queued_by_kueue:
        waiting = Cause(PodReadyReason.NOT_CREATED, "The job waits in its queue", benign=True)
        return replace(base, phase=Phase.QUEUED, pod=waiting, message=base.admitted_message)
    cause = _starting(seen, now)
    return replace(
        base, phase=Phase.STARTING, pod=cause, message=cause.message, events_help=_patience_is_over(seen, now)
    )


def _between_two_pods(seen: Observed, now: datetime) -> bool:
    """The last pod has ended, and the Job controller has not said yet what follows: not worth a write.

    When every shard has a pod that succeeded, nothing follows but the end, however long that takes to be said.
    """
    done = bool(seen.pods) and all(pod.done for pod in seen.pods)
    whole = len({pod.index for pod in seen.pods if pod.phase == "Succeeded"}) == seen.rj.spec.batch.shards
    return seen.rj.status.phase is Phase.RENDERING and done and (whole or not _patience_is_over(seen, now))


def _starting(seen: Observed, now: datetime) -> Cause:
    cause = diagnose(seen.child, seen.pods, seen.events) if _patience_is_over(seen, now) else PREPARING
    failed = [pod for pod in seen.pods if pod.phase == "Failed"]
    if not cause.benign or not (failed or any(pod.deleting for pod in seen.pods)):
        return cause
    if failed and not any(pod.disrupted for pod in failed):
        return Cause(PodReadyReason.RETRYING, "An attempt failed; the next one follows", benign=True)
    return Cause(PodReadyReason.DISRUPTED, "The cluster ended a pod; another one takes its place", benign=True)


def _patience_is_over(seen: Observed, now: datetime) -> bool:
    """Whether something that should be running has been in the making for a while."""
    since = waiting_since(seen)
    return since is not None and now - since >= PATIENCE


def waiting_since(seen: Observed) -> datetime | None:
    """Since when a pod is missing or on its way; ``None`` when nothing was asked for yet."""
    starting = [pod.created for pod in seen.pods if not pod.done and not pod.running]
    if starting:
        return min(starting)
    known = [pod.finished or pod.created for pod in seen.pods] + (
        [seen.child.created] if seen.child is not None else []
    )
    return max(known, default=None)
