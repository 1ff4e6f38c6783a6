"""Warnings for many who ask at once, from a real API server: each hears of its own, and one list answers all."""

import asyncio
from collections.abc import AsyncIterator

from dreamforge_operator.cluster import Json, KubernetesCluster, Resource
from dreamforge_operator.warning_events import KEPT_SECONDS, WarningEvents
from tests.cluster.kubectl import Kubectl, Object
from tests.cluster.operators import connect


def event(kubectl: Kubectl, number: int, kind: str = "Warning") -> Object:
    about = {"kind": "Pod", "namespace": kubectl.namespace, "name": f"pod-{number}", "uid": f"uid-{number}"}
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{kind.lower()}-{number}", "namespace": kubectl.namespace},
        "involvedObject": about,
        "type": kind,
        "reason": "FailedMount",
        "message": f"about {number}",
        "lastTimestamp": "2026-01-02T03:04:05Z",
    }


class Counted(KubernetesCluster):
    """Keeps count of the lists it was asked for."""

    lists = 0

    def pages(self, resource: Resource, *, labels: str = "", fields: str = "") -> AsyncIterator[list[Json]]:
        self.lists += 1
        return super().pages(resource, labels=labels, fields=fields)


def test_many_who_ask_at_once_share_one_list(api_kubectl: Kubectl) -> None:
    api_kubectl.apply(*(event(api_kubectl, number) for number in range(5)), event(api_kubectl, 0, "Normal"))

    async def ask() -> tuple[list[list[str]], int, list[str]]:
        now = 100.0
        async with Counted(await connect(api_kubectl), api_kubectl.namespace) as cluster:
            warnings = WarningEvents(cluster, lambda: now)
            found = await asyncio.gather(*(warnings.about([f"uid-{n}", f"none-{n}"]) for n in range(6)))
            asked = cluster.lists
            api_kubectl.apply(event(api_kubectl, 9))
            assert await warnings.about(["uid-9"]) == []
            now += KEPT_SECONDS
            later = await warnings.about(["uid-9"])
        return [[one.message for one in each] for each in found], asked, [one.message for one in later]

    found, asked, later = asyncio.run(ask())
    assert found == [[f"about {number}"] for number in range(5)] + [[]]
    assert asked == 1
    assert later == ["about 9"]
