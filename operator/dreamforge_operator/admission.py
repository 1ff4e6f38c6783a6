"""What Kueue says of a Job: from its Workload to one reason and one sentence. Pure.

Facts measured on Kueue 0.19: waiting is ``QuotaReserved=False`` with reason ``Pending`` or ``Inadmissible``, a
priority class that does not exist makes no Workload and no event.
"""

from dreamforge.renderjob.conditions import AdmittedReason
from dreamforge_operator.observed import Workload

_QUOTE = 400


def read(workload: Workload | None, *, queued: bool) -> tuple[AdmittedReason, str]:
    """Whether the job may use the cluster, and why (not)."""
    if not queued:
        return AdmittedReason.NOT_QUEUED, "The job waits in no queue"
    if workload is None:
        message = "Kueue has made no Workload for the job: is it running, and does the priority class exist?"
        return AdmittedReason.NO_WORKLOAD, message
    conditions = workload.conditions
    admitted, evicted = conditions.get("Admitted"), conditions.get("Evicted")
    reserved = conditions.get("QuotaReserved")
    if admitted is not None and admitted.true:
        return AdmittedReason.QUOTA_RESERVED, "Kueue admitted the job"
    if evicted is not None and evicted.true:
        reason = AdmittedReason.PREEMPTED if evicted.reason == "Preempted" else AdmittedReason.EVICTED
        return reason, _told("Kueue took the job's quota back; it goes on when there is room", evicted.message)
    if reserved is not None and reserved.reason == "Inadmissible":
        return AdmittedReason.INADMISSIBLE, _told("Kueue can't admit the job", reserved.message)
    detail = reserved.message if reserved is not None else ""
    return AdmittedReason.WAITING_FOR_QUOTA, _told("The job waits for quota", detail)


def _told(sentence: str, detail: str) -> str:
    plain = " ".join(detail.split())[:_QUOTE]
    return f"{sentence} ({plain})" if plain else sentence
