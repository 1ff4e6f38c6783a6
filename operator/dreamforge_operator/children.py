"""Hears of children, Jobs and pods, for as long as the operator runs: by a watch that begins anew whatever ends it.

There are several events for each step of a pod, and all they do is name a RenderJob; kopf, which watches RenderJobs,
would give each child a task and a memory of its own.
"""

import asyncio
from typing import Protocol

from dreamforge import telemetry
from dreamforge.renderjob import names
from dreamforge_operator import observed
from dreamforge_operator.cluster import Cluster, ClusterUnavailable, Json, Refused, Resource
from dreamforge_operator.news import Version

log = telemetry.logger(__name__)

_OURS = f"{names.LABEL_MANAGED_BY}={names.OPERATOR_MANAGER}"
_PAUSE_SECONDS = 1.0


class ChildSeen(Protocol):
    """What is done with the news."""

    def __call__(self, name: str, version: Version, *, on_its_way: bool) -> None:
        """A child of the RenderJob of that name is there, has changed or is gone."""
        ...


class ChildWatch:
    """Children of one kind."""

    def __init__(self, cluster: Cluster, resource: Resource, seen: ChildSeen) -> None:
        self._cluster = cluster
        self._resource = resource
        self._seen = seen
        self._since = ""

    async def follow(self) -> None:
        """Until canceled."""
        while True:
            try:
                await self._watch()
            except ClusterUnavailable as error:
                log.warning("a watch waits", kind=self._resource.plural, cause=str(error))
            except Refused as error:  # also by a server that has just started and does not know its rules
                log.warning(
                    "a watch is refused", kind=self._resource.plural, status=error.status, reason=error.reason
                )
                self._since = ""
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _watch(self) -> None:
        async for event in self._cluster.watch(self._resource, labels=_OURS, since=self._since):
            kind, body = event["type"], event["object"]
            if kind == "ERROR":
                log.info("a watch has expired", kind=self._resource.plural, status=body.get("code"))
                self._since = ""
                return
            self._since = body["metadata"]["resourceVersion"]
            if kind != "BOOKMARK":
                _tell(kind, body, self._seen)


def _tell(kind: str, body: Json, seen: ChildSeen) -> None:
    meta = body["metadata"]
    if name := meta["labels"].get(names.LABEL_RENDERJOB):
        waiting = kind != "DELETED" and observed.on_its_way(body)
        seen(name, Version(meta["uid"], meta["resourceVersion"]), on_its_way=waiting)
