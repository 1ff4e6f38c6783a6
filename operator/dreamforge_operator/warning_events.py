"""What the cluster complains about: events of type Warning, by what they are about.

kube-apiserver keeps no watch cache for events (``DefaultWatchCacheSizes``): a list for a single object reads all of
the namespace from etcd as well. A thousand jobs that wait for their pods ask within seconds: one list answers all.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable

from dreamforge_operator import observed
from dreamforge_operator.cluster import EVENTS, Cluster
from dreamforge_operator.observed import Event

#: A complaint is told this much later at most.
KEPT_SECONDS = 2.0


class WarningEvents:
    """Reads them when somebody asks, at most once in a while, whoever asks meanwhile waiting for the same answer."""

    def __init__(self, cluster: Cluster, clock: Callable[[], float] = time.monotonic) -> None:
        self._cluster = cluster
        self._clock = clock
        self._reading = asyncio.Lock()
        self._found: dict[str, list[Event]] = {}
        self._until = clock()

    async def about(self, uids: Iterable[str]) -> list[Event]:
        """Those about these objects. May raise ``ClusterUnavailable``."""
        async with self._reading:
            if self._clock() >= self._until:
                self._found = await self._read()
                self._until = self._clock() + KEPT_SECONDS
        return [event for uid in uids for event in self._found.get(uid, ())]

    async def _read(self) -> dict[str, list[Event]]:
        found: defaultdict[str, list[Event]] = defaultdict(list)
        async for page in self._cluster.pages(EVENTS, fields="type=Warning"):
            for body in page:
                event = observed.event_of(body)
                found[event.about_uid].append(event)
        return found
