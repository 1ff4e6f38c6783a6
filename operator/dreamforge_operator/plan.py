"""What to do about a RenderJob: from what was observed to a few actions. Pure, and the heart of the operator.

Planning twice is planning once: when the actions have been done, the next plan is empty. A crash between two actions
leaves a state that the next plan starts from, so their order matters: a cancel is latched in the status before the
child is deleted, and the child is made before the status names it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from dreamforge.errors import ErrorCode
from dreamforge.models import PROVIDERS
from dreamforge.renderjob import names
from dreamforge.renderjob.conditions import AcceptedReason, Phase
from dreamforge.renderjob.resource import RenderJob
from dreamforge.renderjob.spec import DeletionPolicy
from dreamforge.renderjob.status import RenderJobStatus
from dreamforge_operator import manifest, situation, status
from dreamforge_operator.observed import ChildJob
from dreamforge_operator.runtimes import Runtimes
from dreamforge_operator.situation import Observed, Refusal, Situation

Json = dict[str, Any]

_QUEUE_LOOK_SECONDS = 5.0


@dataclass(frozen=True)
class Platform:
    """What the operator's settings add to every job."""

    runtimes: Runtimes
    image: str
    env_secret: str | None = None


@dataclass(frozen=True)
class CreateJob:
    """Make the child; that its name is taken is for the next look."""

    body: Json


@dataclass(frozen=True)
class PatchJob:
    """Change the fields of the child that are ours."""

    name: str
    uid: str
    change: Json


@dataclass(frozen=True)
class DeleteJob:
    """End the child and its pods within their grace time."""

    name: str
    uid: str


@dataclass(frozen=True)
class SetWorkloadActive:
    """Suspend or resume through Kueue, which owns the child's ``suspend``."""

    name: str
    active: bool


@dataclass(frozen=True)
class WriteStatus:
    """Say what was observed."""

    status: RenderJobStatus


@dataclass(frozen=True)
class DeleteSelf:
    """Remove the finished RenderJob, as its deletion policy asks."""


Action = CreateJob | PatchJob | DeleteJob | SetWorkloadActive | WriteStatus | DeleteSelf


@dataclass(frozen=True)
class Plan:
    """Actions in order; ``again_in`` asks for another look after so many seconds although nothing happened."""

    actions: tuple[Action, ...] = ()
    again_in: float | None = None
    situation: Situation | None = None

    @property
    def wants_events(self) -> bool:
        """The cluster's warnings may say why nothing runs."""
        return self.situation is not None and self.situation.events_help


NOTHING = Plan()


def make(seen: Observed, platform: Platform, now: datetime) -> Plan:
    """The plan for one RenderJob."""
    rj = seen.rj
    if rj.spec.managed_by != names.MANAGED_BY_OPERATOR or rj.metadata.deletion_timestamp is not None:
        return NOTHING  # another controller's, or the garbage collector is at work
    if rj.status.phase is not None and rj.status.phase.terminal:
        return Plan((*_write(seen, status.seen_again(seen, now)), *_clean_up(seen, now)))
    refusal = seen.refusal or refuse(rj, platform)
    if refusal is not seen.refusal:
        seen = _with_refusal(seen, refusal)
    found = situation.assess(seen, now)
    after = status.build(seen, found, now)
    written = _write(seen, after)
    if found.phase.terminal or found.phase is Phase.CANCELING:
        # The truth is told before its cause is removed: a crash in between leaves nothing untold.
        return Plan((*written, *_end_child(seen, found)), situation=found)
    try:
        actions = _towards(seen, found, platform)
    except ValueError as error:  # a pydantic error is one; its text would repeat the input
        broken = _with_refusal(seen, _invalid(error))
        return make(broken, platform, now)
    if any(isinstance(action, CreateJob) for action in actions):
        written = ()  # the status names the child: the next plan writes it, once there is one
    # That it was suspended is what its resume is told by: a person may have made the Workload inactive as well.
    told_first = found.phase is Phase.SUSPENDED and any(isinstance(action, SetWorkloadActive) for action in actions)
    ordered = (*written, *actions) if told_first else (*actions, *written)
    return Plan(ordered, again_in=_again_in(seen, found, now), situation=found)


def refuse(rj: RenderJob, platform: Platform) -> Refusal | None:
    """Why this platform can't run the job, whatever the cluster says."""
    if rj.spec.provider not in PROVIDERS:
        message = f"This platform has no provider of that name; it has {', '.join(PROVIDERS)}"
        return Refusal(AcceptedReason.UNKNOWN_PROVIDER, message, ErrorCode.DISPATCH_REFUSED)
    asked = rj.spec.model_ref.id if rj.spec.model_ref else None
    runtime = platform.runtimes.choose_runtime(rj.spec.runtime_ref.name if rj.spec.runtime_ref else None, asked)
    if runtime is None:
        message = f"This platform has no runtime of that name; it has {', '.join(sorted(platform.runtimes.runtimes))}"
        return Refusal(AcceptedReason.UNKNOWN_RUNTIME, message, ErrorCode.DISPATCH_REFUSED)
    if rj.spec.input is not None and platform.runtimes.choose_model(asked, rj.spec.provider) is None:
        known = ", ".join(sorted([*platform.runtimes.models, "sketch"]))
        message = f"This platform has no model of that id; it has {known}, and installed ones as slug@version"
        return Refusal(AcceptedReason.UNKNOWN_MODEL, message, ErrorCode.MODEL_MISSING)
    return None


def child_manifest(rj: RenderJob, platform: Platform) -> Json:
    """The child Job. Raises ``ValueError`` for input that breaks a rule."""
    asked = rj.spec.model_ref.id if rj.spec.model_ref else None
    model = platform.runtimes.choose_model(asked, rj.spec.provider)
    named = rj.spec.runtime_ref.name if rj.spec.runtime_ref else None
    runtime = platform.runtimes.choose_runtime(named, model.id if model else asked)
    if runtime is None:
        raise ValueError("no runtime")
    return manifest.job(rj, runtime, runtime.image or platform.image, platform.env_secret, model)


def _towards(seen: Observed, found: Situation, platform: Platform) -> Sequence[Action]:
    """What brings the children to where the spec wants them."""
    if found.phase is Phase.PENDING:
        return ()
    child = seen.child
    if child is None:
        # A child that somebody deleted is made again, but never beside pods of the old one: they hold the GPU.
        return (
            ()
            if found.phase is Phase.SUSPENDED or seen.live_pods
            else (CreateJob(child_manifest(seen.rj, platform)),)
        )
    if child.deleting:
        return ()
    return (*_suspension(seen, child), *_priority(seen.rj, child))


def _suspension(seen: Observed, child: ChildJob) -> Sequence[Action]:
    wanted = seen.rj.spec.suspend
    if child.queued_by_kueue:
        workload = seen.workload
        # One that Kueue or a person made inactive stays so: only what was suspended for us is resumed by us.
        resumes = not wanted and seen.rj.status.phase is Phase.SUSPENDED
        if workload is None or workload.active is not wanted or not (wanted or resumes):
            return ()
        return (SetWorkloadActive(workload.name, not wanted),)
    if child.suspend is wanted:
        return ()
    return (PatchJob(child.name, child.uid, {"spec": {"suspend": wanted}}),)


def _priority(rj: RenderJob, child: ChildJob) -> Sequence[Action]:
    """Kueue lets the priority class change at any time, but not vanish."""
    wanted = rj.spec.queue.priority_class_name if rj.spec.queue else None
    if not wanted or child.labels.get(names.KUEUE_PRIORITY_LABEL) == wanted:
        return ()
    return (PatchJob(child.name, child.uid, {"metadata": {"labels": {names.KUEUE_PRIORITY_LABEL: wanted}}}),)


def _end_child(seen: Observed, found: Situation) -> Sequence[Action]:
    child = seen.child
    if child is None or child.finished or child.deleting:
        return ()
    return (DeleteJob(child.name, child.uid),)


def _clean_up(seen: Observed, now: datetime) -> Sequence[Action]:
    """After the end: nothing of it may run on, and when its time is up the children go."""
    child, rj = seen.child, seen.rj
    ended = rj.status.completion_time or now
    expired = now >= ended + timedelta(seconds=rj.spec.ttl_seconds_after_finished)
    if child is not None and not child.deleting and (expired or not child.finished):
        return (DeleteJob(child.name, child.uid),)
    follows = rj.spec.deletion_policy is DeletionPolicy.DELETE_SELF and not rj.git_managed
    return (DeleteSelf(),) if expired and follows and child is None else ()


def _write(seen: Observed, after: RenderJobStatus) -> tuple[Action, ...]:
    return (WriteStatus(after),) if status.differs(seen.rj.status, after) else ()


def _again_in(seen: Observed, found: Situation, now: datetime) -> float | None:
    """Clocks that no event announces; the full pass looks at all others."""
    waits: list[float] = []
    deadline = situation.start_deadline(seen.rj)
    if deadline is not None and seen.rj.status.start_time is None:
        waits.append((deadline - now).total_seconds())
    since = situation.waiting_since(seen)
    if found.phase in (Phase.STARTING, Phase.RENDERING) and since is not None and not _works(seen):
        waits.append((since + situation.PATIENCE - now).total_seconds())
    if found.phase is Phase.QUEUED and seen.workload is None:
        waits.append(_QUEUE_LOOK_SECONDS)  # Kueue makes it in a moment; what changes in it, a full pass sees
    coming = [wait for wait in waits if wait > 0]
    return min(coming) + 0.1 if coming else None


def _works(seen: Observed) -> bool:
    return any(pod.running for pod in seen.pods)


def _with_refusal(seen: Observed, refusal: Refusal | None) -> Observed:
    return Observed(seen.rj, seen.job, seen.pods, seen.events, seen.workload, refusal=refusal, progress=seen.progress)


def _invalid(error: ValueError) -> Refusal:
    return Refusal(AcceptedReason.INVALID_INPUT, invalid_message(error), ErrorCode.INVALID_INPUT)


def invalid_message(error: ValueError) -> str:
    """Which fields break which rule; the input itself is not repeated."""
    if not isinstance(error, ValidationError):
        return "The input breaks a rule"
    told = [
        f"{'.'.join(map(str, item['loc']))}: {item['msg']}"
        for item in error.errors(include_input=False, include_context=False, include_url=False)[:5]
    ]
    return f"The input breaks a rule: {'; '.join(told)}"[:1000]
