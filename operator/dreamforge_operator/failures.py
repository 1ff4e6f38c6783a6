"""Why a child Job failed: from its condition and its pods' last words to one error class. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

from dreamforge.errors import FACTS, ErrorCode, from_exit_code
from dreamforge.renderjob.conditions import FailedReason, failed_reason
from dreamforge.renderjob.status import FailureStatus
from dreamforge_operator import verdict
from dreamforge_operator.observed import Condition, Pod


class Found(NamedTuple):
    """The cause of a failure, with a sentence for people."""

    code: ErrorCode
    reason: FailedReason
    message: str
    exit_code: int | None = None

    def status(self) -> FailureStatus:
        """As ``status.failure`` has it."""
        exit_code = self.exit_code if self.exit_code is not None and 0 <= self.exit_code <= 255 else None
        return FailureStatus.of(self.code, self.reason.value, exit_code=exit_code)


def of_job(condition: Condition, pods: Sequence[Pod]) -> Found:
    """Why the Job failed. ``condition`` is its ``Failed`` one."""
    if condition.reason == "DeadlineExceeded":
        message = "The job ran longer than limits.activeDeadlineSeconds"
        return Found(ErrorCode.JOB_TIMEOUT, FailedReason.JOB_TIMEOUT, message)
    guilty = [pod for pod in pods if pod.phase == "Failed" and not pod.disrupted and not _stopped(pod)]
    if not guilty:
        return found(ErrorCode.RUNNER_LOST)
    # The attempt that used up the retries is the last one of its shard.
    return of_pod(max(guilty, key=lambda pod: (pod.index_failures, pod.created)))


def of_pod(pod: Pod) -> Found:
    """Why one attempt failed."""
    if pod.ended is None:
        return found(ErrorCode.DISK_FULL if _out_of_disk(pod) else ErrorCode.RUNNER_LOST)
    if pod.ended.reason == "OOMKilled":
        return found(ErrorCode.HOST_OOM, pod.ended.exit_code)
    said = verdict.parse(pod.ended.message)
    code = said.error if said is not None and said.error is not None else from_exit_code(pod.ended.exit_code)
    if code is None or FACTS[code].exit_code is None:  # exit 0 of a failed pod, or a word that no runner may say
        code = ErrorCode.RUNNER_LOST
    return found(code, pod.ended.exit_code)


def found(code: ErrorCode, exit_code: int | None = None) -> Found:
    """A failure told by its class alone."""
    return Found(code, failed_reason(code), FACTS[code].title, exit_code)


def reason_of(code: ErrorCode) -> FailedReason:
    """The ``Failed`` reason of a class."""
    return failed_reason(code)


def _stopped(pod: Pod) -> bool:
    return pod.ended is not None and pod.ended.exit_code == FACTS[ErrorCode.STOPPED].exit_code


def _out_of_disk(pod: Pod) -> bool:
    return pod.status_reason == "Evicted" and "ephemeral" in pod.status_message.lower()
