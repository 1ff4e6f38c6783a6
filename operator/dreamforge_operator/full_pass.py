"""A look at everything: which RenderJobs need one of their own, whatever the watches told or did not tell.

It reads three lists, page by page, and keeps of each object only what decisions need; it never acts. The children are
listed before the RenderJobs: a child whose RenderJob is not in the later list has none.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from dreamforge.renderjob import names
from dreamforge.renderjob.conditions import Phase
from dreamforge.renderjob.resource import RenderJob
from dreamforge_operator import observed, plan
from dreamforge_operator.cluster import JOBS, PODS, RENDERJOBS, Cluster
from dreamforge_operator.observed import ChildJob, Pod
from dreamforge_operator.plan import Platform
from dreamforge_operator.reconcile import read
from dreamforge_operator.situation import Observed
from dreamforge_operator.twins import Twins

Json = dict[str, Any]

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
    rendering: set[str] = field(default_factory=set)
    phases: Counter[str] = field(default_factory=Counter)
    twins: Twins = field(default_factory=Twins)


@dataclass
class _Children:
    jobs: dict[str, ChildJob] = field(default_factory=dict)
    pods: dict[str, list[Pod]] = field(default_factory=dict)
    ownerless: dict[str, ChildJob] = field(default_factory=dict)


async def look(cluster: Cluster, platform: Platform, tell: Callable[[RenderJob], None], now: datetime) -> Findings:
    """One full pass; ``tell`` hears of every RenderJob. May raise ``ClusterUnavailable``."""
    children = await _children(cluster)
    found = Findings()
    async for page in cluster.pages(RENDERJOBS):
        for body in page:
            _look_at(body, children, platform, tell, now, found)
    found.orphans = [job for uid, job in children.ownerless.items() if uid not in found.uids]
    return found


def _look_at(
    body: Json,
    children: _Children,
    platform: Platform,
    tell: Callable[[RenderJob], None],
    now: datetime,
    found: Findings,
) -> None:
    rj, refusal = read(body)
    uid = rj.metadata.uid
    found.uids.add(uid)
    found.names.add(rj.metadata.name)
    found.twins.claim(rj)
    found.phases[rj.status.phase or Phase.PENDING] += 1
    if rj.status.phase is Phase.RENDERING:
        found.rendering.add(str(rj.job_id))
    if rj.metadata.deletion_timestamp is None:
        tell(rj)
    seen = Observed(rj, job=children.jobs.get(uid), pods=children.pods.get(uid, ()), refusal=refusal)
    made = plan.make(seen, platform, now)
    if made.actions or made.wants_events:
        found.look_at.append(rj.metadata.name)


async def _children(cluster: Cluster) -> _Children:
    children = _Children()
    async for page in cluster.pages(JOBS, labels=_OURS):
        for body in page:
            uid = _label(body, names.LABEL_RENDERJOB_UID)
            job = observed.job_of(body)
            (children.jobs if job.owner_uid else children.ownerless)[uid] = job
    async for page in cluster.pages(PODS, labels=_OURS):
        for body in page:
            children.pods.setdefault(_label(body, names.LABEL_RENDERJOB_UID), []).append(observed.pod_of(body))
    return children


def _label(body: Json, label: str) -> str:
    return str((body.get("metadata", {}).get("labels") or {}).get(label, ""))
