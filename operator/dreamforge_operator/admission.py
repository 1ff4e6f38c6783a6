"""What Kueue says of a Job: from its Workload to one reason and one sentence. Pure.

Facts measured on Kueue 0.19: waiting is ``QuotaReserved=False`` with reason ``Pending`` or ``Inadmissible``, a
priority class that does not exist makes no Workload and no event.
"""

from dreamforge.renderjob.conditions import AdmittedReason
from dreamforge_operator.observed import Workload

_QUOTE = 400

NOT_QUEUED = (AdmittedReason.NOT_QUEUED, "The job waits in no queue")
ADMITTED = (AdmittedReason.QUOTA_RESERVED, "Kueue admitted the job")
NO_CHILD = (AdmittedReason.NO_WORKLOAD, "There is no child Job, so nothing waits in the queue")
NOT_YET_SEEN = (AdmittedReason.NOT_YET_SEEN, "Kueue has not taken up the job yet")
NO_WORKLOAD = (
    AdmittedReason.NO_WORKLOAD,
    "There is no Workload of Kueue for the job: is Kueue running, does the priority class exist, and may the "
    "operator read Workloads (its kustomize component says so)?",
)


def read(workload: Workload) -> tuple[AdmittedReason, str]:
    """Whether the job may use the cluster, and why (not)."""
    conditions = workload.conditions
    admitted, evicted = conditions.get("Admitted"), conditions.get("Evicted")
    reserved = conditions.get("QuotaReserved")
    detail = reserved.message if reserved is not None else ""
    if admitted is not None and admitted.true:
        return ADMITTED
    if not workload.active:
        return AdmittedReason.EVICTED, _told("The job's Workload is not active and holds no quota", detail)
    if evicted is not None and evicted.true:
        reason = AdmittedReason.PREEMPTED if evicted.reason == "Preempted" else AdmittedReason.EVICTED
        return reason, _told("Kueue took the job's quota back; it goes on when there is room", evicted.message)
    if reserved is not None and reserved.reason == "Inadmissible":
        return AdmittedReason.INADMISSIBLE, _told("Kueue can't admit the job", detail)
    return AdmittedReason.WAITING_FOR_QUOTA, _told("The job waits for quota", detail)


def _told(sentence: str, detail: str) -> str:
    plain = " ".join(detail.split())[:_QUOTE]
    return f"{sentence} ({plain})" if plain else sentence
