"""Which announcements a RenderJob's state calls for. Pure; what was said before is :mod:`announcer`'s business."""

from datetime import datetime, timedelta

from dreamforge.announcements import (
    Announcement,
    EndedAs,
    JobCancelRequested,
    JobDeleted,
    JobEnded,
    JobRegistered,
    JobWaiting,
)
from dreamforge.events import Failure, Level
from dreamforge.renderjob.conditions import (
    AcceptedReason,
    AdmittedReason,
    Condition,
    ConditionStatus,
    ConditionType,
    Phase,
    PodReadyReason,
)
from dreamforge.renderjob.resource import RenderJob
from dreamforge.transport.names import ANSWER_TTL_SECONDS
from dreamforge_operator.manifest import correlation_id

_ADMITTED_SOON = frozenset({AdmittedReason.NOT_QUEUED, AdmittedReason.QUOTA_RESERVED, AdmittedReason.NOT_YET_SEEN})
_ENDINGS = {
    Phase.SUCCEEDED: EndedAs.SUCCEEDED,
    Phase.FAILED: EndedAs.FAILED,
    Phase.CANCELED: EndedAs.CANCELED,
}
#: A person need not do anything about these.
_ON_ITS_WAY = frozenset(
    {
        PodReadyReason.RUNNING,
        PodReadyReason.FINISHED,
        PodReadyReason.NOT_CREATED,
        PodReadyReason.SCHEDULING,
        PodReadyReason.CONTAINER_CREATING,
        PodReadyReason.STOPPED,
        PodReadyReason.FAILED,
    }
)
_MOST_LABELS = 16
_FOREIGN = ("kubernetes.io", "k8s.io", "fluxcd.io", "argoproj.io")


def wanted(rj: RenderJob, now: datetime, default_model: str | None = None) -> list[Announcement]:
    """What ingest should know by now, in the order it should hear it.

    ``default_model`` is the id of what this platform renders where the RenderJob names no model: the job's row says
    the same then, whatever the API would take.
    """
    accepted = rj.status.condition(ConditionType.ACCEPTED)
    if accepted is not None and accepted.reason == AcceptedReason.DUPLICATE_JOB_ID:
        return []  # the job is another RenderJob's
    ended = rj.status.completion_time
    if ended is not None and now - ended > timedelta(seconds=ANSWER_TTL_SECONDS):
        return []
    told: list[Announcement] = []
    if rj.spec.job_id is None or rj.spec.input is not None:
        told.append(registered(rj, now, default_model))
    phase = rj.status.phase
    if phase is not None and phase.terminal:
        return [*told, _ended(rj, phase, now)]
    if rj.canceled:
        told.append(JobCancelRequested(**_of(rj), ts=now))
    waiting = _waiting(rj, now)
    return [*told, waiting] if waiting is not None else told


def registered(rj: RenderJob, now: datetime, default_model: str | None) -> JobRegistered:
    """A job that a person made."""
    created = rj.metadata.creation_timestamp or now
    limits = rj.spec.limits
    patience = timedelta(seconds=limits.start_deadline_seconds + limits.active_deadline_seconds)
    return JobRegistered(
        **_of(rj),
        ts=now,
        created_at=created,
        deadline_at=created + patience,
        provider=rj.spec.provider,
        model_id=rj.spec.model_ref.id if rj.spec.model_ref else default_model,
        params=_params(rj),
        labels=_labels(rj),
        correlation_id=correlation_id(rj),
    )


def deleted(rj: RenderJob, now: datetime) -> JobDeleted:
    """The RenderJob is gone."""
    return JobDeleted(**_of(rj), ts=now)


def _of(rj: RenderJob) -> dict[str, object]:
    meta = rj.metadata
    return {"job_id": rj.job_id, "namespace": meta.namespace, "name": meta.name, "uid": meta.uid}


def _params(rj: RenderJob) -> dict[str, object] | None:
    try:
        params = rj.spec.params()
    except ValueError:  # the RenderJob is refused for it
        return None
    return None if params is None else params.model_dump(mode="json", exclude_none=True)


def _labels(rj: RenderJob) -> dict[str, str]:
    """The person's own, not those by which tools find their objects."""
    own = {key: value for key, value in rj.metadata.labels.items() if not any(word in key for word in _FOREIGN)}
    return dict(sorted((key, value) for key, value in own.items() if len(key) <= 63)[:_MOST_LABELS])


def _ended(rj: RenderJob, phase: Phase, now: datetime) -> JobEnded:
    failure = rj.status.failure
    told = None
    if phase is Phase.FAILED and failure is not None:
        condition = rj.status.condition(ConditionType.FAILED)
        message = condition.message if condition is not None else failure.reason
        told = Failure(code=failure.error_class, message=message, item_index=failure.item_index)
    return JobEnded(**_of(rj), ts=now, outcome=_ENDINGS[phase], failure=told)


def _waiting(rj: RenderJob, now: datetime) -> JobWaiting | None:
    for kind, fine in (
        (ConditionType.ACCEPTED, frozenset({AcceptedReason.VALID})),
        (ConditionType.ADMITTED, _ADMITTED_SOON),
        (ConditionType.POD_READY, _ON_ITS_WAY),
    ):
        condition = rj.status.condition(kind)
        if condition is not None and condition.status is ConditionStatus.FALSE and condition.reason not in fine:
            return _told(rj, condition, now)
    return None


def _told(rj: RenderJob, condition: Condition, now: datetime) -> JobWaiting:
    level = Level.INFO if condition.type == ConditionType.ADMITTED else Level.WARNING
    return JobWaiting(**_of(rj), ts=now, level=level, reason=condition.reason, message=condition.message[:4000])
