"""O1, O2: from a RenderJob to its pod, against a raw watcher that posts the same Job. O3: writes of one job.

Each round is a fresh process in a fresh namespace; what earlier rounds made stays and is still. A time runs from one
watch event to another, seen by one observer.
"""

import asyncio
import json
import random
import statistics
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager

from benchmarks.harness import Absolute, Comparison, Result, compare
from benchmarks.operator_bed import Bed, bed, render_job
from benchmarks.operator_client import JOBS, PODS, RENDERJOBS, Api, Json, Sightings, connect
from benchmarks.stack import Servers
from dreamforge.renderjob import names
from tests.cluster.kubectl import Kubectl

RATE = 20.0
#: Of O1, one round: ten seconds of it.
STEADY = 200
BURST = 1_000
PLAYED = 40
_WARM = 10
_PATIENCE_SECONDS = 180.0
_STARTED = "2026-01-02T03:04:05Z"

Side = Callable[[Kubectl], AbstractContextManager[object]]


class _Bench:
    def __init__(self, bed: Bed, *, steady: int = STEADY, burst: int = BURST) -> None:
        self._bed = bed
        self._steady = steady
        self._burst = burst
        self._seed = 0
        self.pods: dict[Side, list[list[float]]] = {}
        self.jobs: dict[Side, list[list[float]]] = {}

    def steady(self, side: Side) -> float:
        """p50 from RenderJob to pod in milliseconds; both sides of a pair get RenderJobs at the same times."""
        drawn = random.Random(self._seed // 2)
        self._seed += 1
        gaps = [drawn.expovariate(RATE) for _ in range(self._steady)]
        kubectl = self._bed.namespace()
        with side(kubectl):
            seen = asyncio.run(_arrive(self._bed, kubectl.namespace, gaps, PODS))
        self.pods.setdefault(side, []).append(seen.between(RENDERJOBS, PODS))
        self.jobs.setdefault(side, []).append(seen.between(RENDERJOBS, JOBS))
        return statistics.median(self.pods[side][-1])

    def burst(self, side: Side) -> float:
        """Jobs a second, from the first RenderJob to the last Job."""
        kubectl = self._bed.namespace()
        with side(kubectl):
            seen = asyncio.run(_arrive(self._bed, kubectl.namespace, [0.0] * self._burst, JOBS))
        first, last = min(seen.seen[RENDERJOBS].values()), max(seen.seen[JOBS].values())
        return self._burst / (last - first)


async def _arrive(bed: Bed, namespace: str, gaps: list[float], until: str) -> Sightings:
    """Post a RenderJob after each gap, until all of a kind are there; the first few only warm up."""
    async with connect(bed.plane.kubeconfig) as api:
        seen = Sightings(api, namespace, names.LABEL_RENDERJOB)
        seen.follow(RENDERJOBS, JOBS, PODS)
        try:
            await _post_all(api, namespace, [0.0] * _WARM)
            await seen.all_seen(until, _WARM, _PATIENCE_SECONDS)
            for found in seen.seen.values():
                found.clear()
            warm = asyncio.create_task(_post_all(api, namespace, gaps))
            await seen.all_seen(until, len(gaps), _PATIENCE_SECONDS)
            await warm
        finally:
            await seen.end()
        return seen


async def _post_all(api: Api, namespace: str, gaps: list[float]) -> None:
    """An open loop: when the next one is posted does not depend on the last one's answer."""
    path = RENDERJOBS.format(namespace)
    bodies = [json.dumps(render_job()) for _ in gaps]
    loop = asyncio.get_running_loop()
    due = loop.time()
    posts = []
    for gap, body in zip(gaps, bodies, strict=True):
        due += gap
        await asyncio.sleep(max(0.0, due - loop.time()))
        posts.append(asyncio.create_task(api.post(path, body)))
    await asyncio.gather(*posts)


def writes(bed: Bed, jobs: int) -> Absolute:
    """O3: all that the operator wrote for jobs that started, rendered and succeeded, as the API server tells."""
    kubectl = bed.namespace()
    with bed.operator(kubectl):
        asyncio.run(_play(bed, kubectl.namespace, jobs))
    found = Counter(bed.writes(kubectl.namespace))
    result = Absolute("O3", f"operator's writes a job, {jobs} jobs from apply to Succeeded", "writes", 4)
    result.ours.append(found.total() / jobs)
    result.notes.append(", ".join(f"{what}: {count}" for what, count in sorted(found.items())))
    return result


async def _play(bed: Bed, namespace: str, jobs: int) -> None:
    """Play the kubelet for jobs that succeed."""
    async with connect(bed.plane.kubeconfig) as api:
        posts = asyncio.create_task(_post_all(api, namespace, [0.1] * jobs))
        running: dict[str, str] = {}
        followed = [
            asyncio.create_task(_run_pods(api, namespace, running)),
            asyncio.create_task(_end_pods(api, namespace, running, jobs)),
        ]
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await posts
                await followed[1]
        finally:
            for task in followed:
                task.cancel()
            await asyncio.gather(*followed, return_exceptions=True)


async def _run_pods(api: Api, namespace: str, running: dict[str, str]) -> None:
    """Every new pod begins to run."""
    async for _, pod in api.watch(PODS.format(namespace)):
        meta = pod["metadata"]
        if meta["labels"][names.LABEL_RENDERJOB] not in running:
            running[meta["labels"][names.LABEL_RENDERJOB]] = meta["name"]
            await _tell(api, namespace, meta["name"], "Running", {"running": {"startedAt": _STARTED}})


async def _end_pods(api: Api, namespace: str, running: dict[str, str], jobs: int) -> None:
    """Every pod whose RenderJob says that it renders is done; until all RenderJobs have ended."""
    ended: set[str] = set()
    words = {"v": 1, "class": None, "exit_code": 0, "items_done": 1, "items_failed": 0}
    state = {"exitCode": 0, "message": json.dumps(words), "startedAt": _STARTED, "finishedAt": _STARTED}
    async for _, rj in api.watch(RENDERJOBS.format(namespace), whole=True):
        name, phase = rj["metadata"]["name"], rj.get("status", {}).get("phase")
        if phase == "Rendering" and (pod := running.pop(name, None)):
            running[name] = ""
            await _tell(api, namespace, pod, "Succeeded", {"terminated": state})
        if phase == "Succeeded":
            ended.add(name)
            if len(ended) == jobs:
                return


async def _tell(api: Api, namespace: str, pod: str, phase: str, state: Json) -> None:
    up = phase == "Running"
    container = {"name": "runner", "image": "x", "imageID": "x", "ready": up, "restartCount": 0, "state": state}
    conditions = [{"type": "Ready", "status": str(up)}]
    status = {"phase": phase, "conditions": conditions, "containerStatuses": [container]}
    await api.patch(f"{PODS.format(namespace)}/{pod}/status", {"status": status})


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))]


def _tail(bench: _Bench, ours: Side, reference: Side) -> Comparison:
    """O1's slowest hundredth, from the same rounds."""
    result = Comparison("O1t", "the same, p99", "ms", 5.0, lower_is_better=True)
    for side, values in ((ours, result.ours), (reference, result.reference)):
        values += [_percentile(found, 0.99) for found in bench.pods[side]]
    return result


def run(servers: Servers, pairs: int = 5, *, steady: int = STEADY, burst: int = BURST) -> list[Result]:
    """Measure O1, O2 and O3."""
    with bed(servers.folder / "operator", servers.redis_url) as made:
        # First: thousands of Jobs make the Job controller slow, and of a late pod the operator says why, once more.
        three = writes(made, PLAYED)
        bench = _Bench(made, steady=steady, burst=burst)
        ours, bare = made.operator, made.bare
        one = Comparison(
            "O1", "RenderJob to pod, p50 at 20 a second, against a raw watcher", "ms", 3.0, lower_is_better=True
        )
        compare(one, lambda: bench.steady(ours), lambda: bench.steady(bare), pairs)
        for who, side in (("operator", ours), ("raw watcher", bare)):
            jobs = [value for found in bench.jobs[side] for value in found]
            one.notes.append(
                f"RenderJob to Job, {who}: p50 {statistics.median(jobs):.3g}, p99 {_percentile(jobs, 0.99):.3g} ms"
            )
        two = Comparison("O2", f"Jobs for a burst of {burst:,} RenderJobs against a raw watcher", "Jobs/s", 0.40)
        compare(two, lambda: bench.burst(ours), lambda: bench.burst(bare), pairs)
        return [one, _tail(bench, ours, bare), two, three]
