"""The status of a RenderJob, from what was observed. Pure; the same observation makes the same status.

Only what cannot be seen again is carried over from the status before: times of first sight, the cancel latch, and
counters that may only grow.
"""

from datetime import datetime
from typing import Any

from dreamforge import keys
from dreamforge.renderjob import ranges
from dreamforge.renderjob.conditions import AcceptedReason as Accepted
from dreamforge.renderjob.conditions import AdmittedReason as Admitted
from dreamforge.renderjob.conditions import (
    CanceledReason,
    CompleteReason,
    Condition,
    ConditionStatus,
    ConditionType,
    GPUCleanReason,
    Phase,
    PodReadyReason,
    ReadyReason,
    ReconcilingReason,
    StalledReason,
    SuspendedReason,
)
from dreamforge.renderjob.status import (
    ArtifactsStatus,
    FailureStatus,
    GPUStatus,
    ItemsStatus,
    JobReference,
    Progress,
    RenderJobStatus,
)
from dreamforge.spec import Shard
from dreamforge_operator import verdict
from dreamforge_operator.manifest import STEP
from dreamforge_operator.situation import Observed, Situation

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN
_ACCEPTED = frozenset({Accepted.VALID, Accepted.DELETION_POLICY_IGNORED})
_ADMITTED = frozenset({Admitted.NOT_QUEUED, Admitted.QUOTA_RESERVED})
_READY_PODS = frozenset({PodReadyReason.RUNNING, PodReadyReason.FINISHED})
_SETTLED = frozenset({Phase.SUCCEEDED, Phase.CANCELED})

Json = dict[str, Any]
Fact = tuple[ConditionType, ConditionStatus, str, str]


def build(seen: Observed, found: Situation, now: datetime) -> RenderJobStatus:
    """What the status should be."""
    rj, before, phase = seen.rj, seen.rj.status, found.phase
    now = now.replace(microsecond=0)
    done, failed = _items_done(seen, found), _items_failed(seen, found)
    last = next(verdict.newest(seen.pods), None)
    return RenderJobStatus(
        observed_generation=rj.metadata.generation,
        phase=phase,
        job_id=rj.job_id,
        attempt=_attempts(seen, found),
        start_time=before.start_time or min((pod.started for pod in seen.pods if pod.started), default=None),
        completion_time=before.completion_time or (now if phase.terminal else None),
        cancel_request_time=before.cancel_request_time or (now if rj.spec.cancel else None),
        progress=_progress(seen, found, done),
        items=_items(done, failed) if phase.terminal else before.items,
        gpu=_gpu(seen, last) if phase.terminal else before.gpu,
        failure=_failure(found, failed),
        job_ref=JobReference(name=seen.child.name, uid=seen.child.uid) if seen.child else before.job_ref,
        artifacts=_artifacts(seen, done) if phase.terminal else None,
        conditions=_conditions(seen, found, last, now),
    )


def seen_again(seen: Observed, now: datetime) -> RenderJobStatus:
    """The status of a job that has ended: it stands, and is true of the newest generation too."""
    before, generation = seen.rj.status, seen.rj.metadata.generation
    if before.observed_generation >= generation:
        return before
    conditions = [item.model_copy(update={"observed_generation": generation}) for item in before.conditions]
    return before.model_copy(update={"observed_generation": generation, "conditions": conditions})


def differs(before: RenderJobStatus, after: RenderJobStatus) -> bool:
    """Whether a write is worth it: a sentence that says the same in other words is not."""
    return _meaning(before) != _meaning(after)


def manifest(status: RenderJobStatus) -> Json:
    """As the API server stores it."""
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)


def change(before: RenderJobStatus, after: RenderJobStatus) -> Json:
    """A merge patch from one to the other: a merge keeps what it does not name, so what went is named as null."""
    old, new = manifest(before), manifest(after)
    return _without(old, new)


def _without(old: Json, new: Json) -> Json:
    told: Json = dict(new)
    for key, value in old.items():
        if key not in new:
            told[key] = None
        elif isinstance(value, dict) and isinstance(new[key], dict):
            told[key] = _without(value, new[key])
    return told


def _meaning(status: RenderJobStatus) -> Json:
    plain = manifest(status)
    for item in plain["conditions"]:
        item["message"] = ""
    return plain


def _attempts(seen: Observed, found: Situation) -> int:
    """The most pods of one shard up to one that got to start a runner; those that were deleted left their number.

    A suspension, ours or Kueue's, leaves none: what runs again was made after the last runner had gone.
    """
    before, told = seen.rj.status.attempt, seen.progress.attempt if seen.progress else 0
    numbers = [pod.index_failures + pod.index_ignored + 1 for pod in seen.pods if pod.started is not None]
    gone = seen.rj.status.condition(ConditionType.POD_READY)
    if before and gone is not None and gone.status is FALSE and found.phase is Phase.RENDERING:
        again = all(pod.created >= gone.last_transition_time for pod in seen.pods if pod.running)
        numbers.append(before + again)
    return max(before, told, *numbers)


def _items_done(seen: Observed, found: Situation) -> set[int]:
    """Items that are stored for certain, by the Job's finished shards and the last words of the others."""
    total, shards = seen.rj.spec.batch.count, seen.rj.spec.batch.shards
    if found.phase is Phase.SUCCEEDED:
        return set(range(total))
    if not found.phase.terminal:
        return set()
    done: set[int] = set()
    for pod in seen.pods:
        said = verdict.parse(pod.ended.message) if pod.ended is not None else None
        if said is not None and pod.index < shards:
            # A runner works through its items in order.
            done.update(list(Shard(index=pod.index, count=shards).items(total))[: said.items_done])
    return done


def _items_failed(seen: Observed, found: Situation) -> set[int]:
    """Where the last attempt of a shard stopped because of an item: the first one without an image."""
    if found.phase is not Phase.FAILED:
        return set()
    total, shards = seen.rj.spec.batch.count, seen.rj.spec.batch.shards
    failed: set[int] = set()
    for pod in {pod.index: pod for pod in sorted(seen.pods, key=lambda pod: pod.created)}.values():
        said = verdict.parse(pod.ended.message) if pod.ended is not None else None
        if said is not None and said.items_failed and pod.index < shards:
            failed.update(list(Shard(index=pod.index, count=shards).items(total))[said.items_done :][:1])
    return failed


def _items(done: set[int], failed: set[int]) -> ItemsStatus:
    return ItemsStatus(succeeded=ranges.format_ranges(done), failed=ranges.format_ranges(failed - done))


def _failure(found: Situation, failed: set[int]) -> FailureStatus | None:
    """With the item, when it is one alone."""
    if found.failure is None or len(failed) != 1:
        return found.failure
    return found.failure.model_copy(update={"item_index": min(failed)})


def _progress(seen: Observed, found: Situation, done: set[int]) -> Progress:
    before, total = seen.rj.status.progress or Progress(), seen.rj.spec.batch.count
    if found.phase is Phase.SUCCEEDED:
        return Progress(percent=100, items_total=total, items_done=total)
    told = seen.progress
    percent = max(before.percent, int(told.progress * 100) if told else 0)
    items = max(before.items_done, len(done), min(told.items_done, total) if told else 0)
    eta = int(told.eta_seconds) if told and told.eta_seconds is not None else before.eta_seconds if not told else None
    return Progress(
        percent=min(percent, 99),
        items_total=total,
        items_done=items,
        eta_seconds=None if found.phase.terminal else eta,
    )


def _gpu(seen: Observed, last: verdict.Verdict | None) -> GPUStatus | None:
    vram = last.vram_mib if last is not None else None
    if last is None or (vram is None and last.clean is None):
        return seen.rj.status.gpu
    start, peak, end = (vram.start, vram.peak, vram.end) if vram is not None else (None, None, None)
    return GPUStatus(
        count=seen.rj.spec.gpu.count,
        vram_start_mib=None if start is None else round(start),
        vram_peak_mib=None if peak is None else round(peak),
        vram_end_mib=None if end is None else round(end),
        clean=last.clean,
    )


def _artifacts(seen: Observed, done: set[int]) -> ArtifactsStatus:
    manifests = (words.manifest_sha256 for words in verdict.newest(seen.pods) if words.manifest_sha256)
    return ArtifactsStatus(
        count=len(done),
        prefix=keys.step_prefix(seen.rj.job_id, STEP.value),
        manifest_sha256=next(manifests, None),
    )


def _conditions(seen: Observed, found: Situation, last: verdict.Verdict | None, now: datetime) -> list[Condition]:
    facts = [
        _fact(ConditionType.ACCEPTED, found.accepted in _ACCEPTED, found.accepted, found.accepted_message),
        _fact(ConditionType.ADMITTED, found.admitted in _ADMITTED, found.admitted, found.admitted_message),
        _fact(ConditionType.POD_READY, found.pod.reason in _READY_PODS, found.pod.reason, found.pod.message),
        *_gpu_clean(found, last),
        _suspended(seen, found),
        *_end(found),
        *_kstatus(found),
    ]
    return [_condition(seen, fact, now) for fact in facts]


def _kstatus(found: Situation) -> list[Fact]:
    """The three that Flux and Argo CD read. Stalled and Reconciling are never both True."""
    phase = found.phase
    ready = _fact(ConditionType.READY, phase in _SETTLED, ReadyReason(phase.value), found.message)
    if phase.terminal:
        reconciling = _fact(ConditionType.RECONCILING, False, ReconcilingReason.FINISHED, "")
    elif phase is Phase.SUSPENDED:
        reconciling = _fact(ConditionType.RECONCILING, False, ReconcilingReason.SUSPENDED, "")
    else:
        reconciling = _fact(ConditionType.RECONCILING, True, ReconcilingReason.PROGRESSING, found.message)
    failed = phase is Phase.FAILED
    stalled = _fact(
        ConditionType.STALLED,
        failed,
        StalledReason.FAILED if failed else StalledReason.NOT_STALLED,
        found.message if failed else "",
    )
    return [ready, reconciling, stalled]


def _end(found: Situation) -> list[Fact]:
    match found.phase:
        case Phase.SUCCEEDED:
            return [_fact(ConditionType.COMPLETE, True, CompleteReason.SUCCEEDED, "Every image is stored")]
        case Phase.CANCELED:
            return [_fact(ConditionType.CANCELED, True, CanceledReason.CANCELED, found.message)]
        case Phase.FAILED if found.failure is not None:
            return [(ConditionType.FAILED, TRUE, found.failure.reason, found.message)]
    return []


def _gpu_clean(found: Situation, last: verdict.Verdict | None) -> list[Fact]:
    if not found.phase.terminal:
        return []
    if last is None or last.clean is None:
        message = "GPU memory was not measured"
        return [(ConditionType.GPU_CLEAN, UNKNOWN, GPUCleanReason.NOT_MEASURED, message)]
    reason = GPUCleanReason.VERIFIED if last.clean else GPUCleanReason.RESIDUAL_MEMORY
    message = "GPU memory is back at its baseline" if last.clean else "GPU memory is not back at its baseline"
    return [_fact(ConditionType.GPU_CLEAN, last.clean, reason, message)]


def _suspended(seen: Observed, found: Situation) -> Fact:
    if found.phase is Phase.SUSPENDED:
        return _fact(ConditionType.SUSPENDED, True, SuspendedReason.SUSPEND_REQUESTED, found.message)
    before = seen.rj.status.condition(ConditionType.SUSPENDED)
    resumed = before is not None and before.reason != SuspendedReason.NOT_SUSPENDED
    reason = SuspendedReason.RESUMED if resumed else SuspendedReason.NOT_SUSPENDED
    return _fact(ConditionType.SUSPENDED, False, reason, "")


def _fact(kind: ConditionType, holds: bool, reason: str, message: str) -> Fact:
    return kind, TRUE if holds else FALSE, reason, message


def _condition(seen: Observed, fact: Fact, now: datetime) -> Condition:
    kind, status, reason, message = fact
    before = seen.rj.status.condition(kind)
    since = before.last_transition_time if before is not None and before.status is status else now
    return Condition(
        type=kind.value,
        status=status,
        observed_generation=seen.rj.metadata.generation,
        last_transition_time=since,
        reason=str(reason),
        message=message,
    )
