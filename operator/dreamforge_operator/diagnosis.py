"""Why no runner works yet: from a pod's status and the cluster's warnings to one reason and one sentence.

Quota and missing Secrets show up in Events alone; the rest in the pod. The sentence is ours; what the cluster said is
quoted behind it, since it names the image, the resource or the claim that somebody has to mend.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dreamforge.renderjob.conditions import PodReadyReason
from dreamforge_operator.observed import ChildJob, Event, Pod

_QUOTE = 400


class Cause(NamedTuple):
    """What a job waits for."""

    reason: PodReadyReason
    message: str
    #: Nobody needs to do anything: it is on its way.
    benign: bool = False


class _Sign(NamedTuple):
    """A text the cluster uses, what it means, and what we say."""

    pattern: re.Pattern[str]
    reason: PodReadyReason
    sentence: str


def _sign(pattern: str, reason: PodReadyReason, sentence: str) -> _Sign:
    return _Sign(re.compile(pattern, re.IGNORECASE), reason, sentence)


_SECRET = _sign(
    r"secret \"?[^ ]+\"? not found|references non-existent secret key|couldn't find key .* in Secret",
    PodReadyReason.SECRET_MISSING,
    "A Secret the runner needs is not there; make it, and the pod starts",
)
_CREATED_NOT = (
    _sign(
        r"exceeded quota",
        PodReadyReason.QUOTA_EXCEEDED,
        "The namespace's quota has no room for the pod; it starts when there is room",
    ),
    _sign(
        r".",
        PodReadyReason.ADMISSION_REFUSED,
        "The cluster refuses the pod; mend the runtime or the namespace's policy",
    ),
)
_UNSCHEDULED = (
    _sign(
        r"persistentvolumeclaim .*not found|unbound .*PersistentVolumeClaim",
        PodReadyReason.VOLUME_NOT_MOUNTED,
        "The volume with the models is not there; make its claim",
    ),
    _sign(
        r"insufficient [\w.-]+/[\w.-]*gpu|cannot allocate all claims|resourceclaim",
        PodReadyReason.NO_GPU,
        "No node has a free GPU of this kind; the pod starts when there is one",
    ),
    _sign(r".", PodReadyReason.UNSCHEDULABLE, "No node takes the pod"),
)
_NOT_MOUNTED = (
    _SECRET,
    _sign(r".", PodReadyReason.VOLUME_NOT_MOUNTED, "A volume of the pod can't be mounted"),
)
_NOT_CONFIGURED = (
    _SECRET,
    _sign(r".", PodReadyReason.CONFIG_ERROR, "The container can't be set up; mend the runtime"),
)
_NOT_MADE = (
    _sign(r"CDI|device", PodReadyReason.NO_GPU, "The GPU can't be given to the container; the node needs a look"),
    _sign(r".", PodReadyReason.CONFIG_ERROR, "The container can't be started; mend the runtime"),
)
_PULL_REASONS = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
)
_CONFIG_REASONS = frozenset({"CreateContainerConfigError", "ConfigMapNotFound"})
_MADE_REASONS = frozenset({"CreateContainerError", "RunContainerError", "StartError", "ContainerCannotRun"})
_MOUNT_EVENTS = frozenset({"FailedMount", "FailedAttachVolume", "FailedMapVolume"})

_ON_ITS_WAY = "The runner's pod is on its way"
PREPARING = Cause(PodReadyReason.NOT_CREATED, _ON_ITS_WAY, benign=True)


def diagnose(job: ChildJob | None, pods: Sequence[Pod], events: Iterable[Event]) -> Cause:
    """The one cause to tell: the worst of any pod that is not over, else why there is none."""
    waiting = [pod for pod in pods if not pod.over and not pod.running]
    told = sorted(events, key=lambda event: event.last_seen, reverse=True)
    causes = [_of_pod(pod, [event for event in told if event.about_uid == pod.uid]) for pod in waiting]
    worst = next((cause for cause in causes if not cause.benign), None)
    if worst is not None:
        return worst
    # A pod beside it may be on its way: a shard that can't be created is still what holds the job up.
    refused = _not_created(event for event in told if job is not None and event.about_uid == job.uid)
    if refused is not None and (job is None or len(waiting) < max(1, _missing(job, pods))):
        return refused
    return causes[0] if causes else PREPARING


def _missing(job: ChildJob, pods: Sequence[Pod]) -> int:
    """How many pods the Job controller should have made and did not; at least one."""
    return max(1, job.parallelism - sum(pod.over or pod.running for pod in pods))


def _of_pod(pod: Pod, events: Sequence[Event]) -> Cause:
    scheduled = pod.conditions.get("PodScheduled")
    if scheduled is not None and scheduled.status == "False":
        if scheduled.reason == "SchedulingGated":
            return Cause(PodReadyReason.SCHEDULING, "The pod is held back by a scheduling gate", benign=True)
        return _first(_UNSCHEDULED, scheduled.message)
    waiting = pod.waiting
    if waiting is not None and waiting.reason in _PULL_REASONS:
        sentence = f"The image {pod.image} can't be pulled; mend its name or the registry's credentials"
        # The two reasons alternate; the one in between two tries explains nothing.
        detail = "" if waiting.reason == "ImagePullBackOff" else waiting.message
        return Cause(PodReadyReason.IMAGE_PULL_FAILED, _told(sentence, detail))
    if waiting is not None and waiting.reason in _CONFIG_REASONS:
        return _first(_NOT_CONFIGURED, waiting.message)
    if waiting is not None and waiting.reason in _MADE_REASONS:
        return _first(_NOT_MADE, waiting.message)
    unmounted = next((event for event in events if event.reason in _MOUNT_EVENTS), None)
    if unmounted is not None:
        return _first(_NOT_MOUNTED, unmounted.message)
    if scheduled is not None and scheduled.true:
        message = f"The node prepares the runner's container, image {pod.image}"
        return Cause(PodReadyReason.CONTAINER_CREATING, message, benign=True)
    return Cause(PodReadyReason.SCHEDULING, "The pod looks for a node", benign=True)


def _not_created(events: Iterable[Event]) -> Cause | None:
    refused = next((event for event in events if event.reason == "FailedCreate"), None)
    return None if refused is None else _first(_CREATED_NOT, refused.message)


def _first(signs: Sequence[_Sign], message: str) -> Cause:
    for sign in signs:
        if sign.pattern.search(message):
            return Cause(sign.reason, _told(sign.sentence, message))
    return Cause(signs[-1].reason, _told(signs[-1].sentence, message))


def _told(sentence: str, detail: str) -> str:
    plain = " ".join(detail.split())[:_QUOTE]
    return f"{sentence} ({plain})" if plain else sentence
