"""G2k, G3: what 10,000 RenderJobs that live and change nothing cost the operator, in CPU per new one and in memory.

Two operators, one with few of them and one with many, get the same new RenderJobs at the same time for a minute,
which is at least one full pass of each. CPU time counts by process, so that they run side by side does no harm. Live
ones are suspended; no controllers run, so a new one is a Job without a pod.
"""

import asyncio
import json
import time
from contextlib import ExitStack

import psutil

from benchmarks.harness import Absolute, Comparison, Result
from benchmarks.operator_bed import Bed, bed, render_job
from benchmarks.operator_client import JOBS, RENDERJOBS, Api, Sightings, connect
from benchmarks.stack import Servers
from dreamforge.renderjob import names
from tests.cluster.kubectl import Kubectl

FEW, MANY = 100, 10_000
NEW = 600
WINDOW_SECONDS = 60.0
_MOST_PAIRS = 3
_AT_ONCE = 32
_FILL_SECONDS = 900.0
_REST_SECONDS = 20.0


async def _fill(bed: Bed, namespace: str, count: int) -> None:
    """So many suspended RenderJobs, until the operator has seen all of them."""
    async with connect(bed.plane.kubeconfig) as api:
        free = asyncio.Semaphore(_AT_ONCE)

        async def make() -> None:
            body = render_job()
            body["spec"]["suspend"] = True
            async with free:
                await api.post(RENDERJOBS.format(namespace), json.dumps(body))

        posts = asyncio.gather(*(make() for _ in range(count)))
        async with asyncio.timeout(_FILL_SECONDS):
            await _suspended(api, namespace, count)
        await posts


async def _suspended(api: Api, namespace: str, count: int) -> None:
    seen: set[str] = set()
    while True:
        async for _, rj in api.watch(RENDERJOBS.format(namespace), whole=True):
            if rj.get("status", {}).get("phase") == "Suspended":
                seen.add(rj["metadata"]["name"])
                if len(seen) >= count:
                    return


async def _arrive(bed: Bed, namespaces: list[str], new: int, seconds: float) -> None:
    """New RenderJobs for each operator, evenly over the window; at its end all have their Jobs."""
    async with connect(bed.plane.kubeconfig) as api:
        seen = [Sightings(api, namespace, names.LABEL_RENDERJOB) for namespace in namespaces]
        for one in seen:
            one.follow(JOBS)
        began = time.monotonic()
        try:
            await asyncio.sleep(1)
            before = [len(one.seen[JOBS]) for one in seen]
            for number in range(new):
                await asyncio.sleep(max(0.0, began + 1 + number * (seconds - 5) / new - time.monotonic()))
                await asyncio.gather(
                    *(api.post(RENDERJOBS.format(namespace), json.dumps(render_job())) for namespace in namespaces)
                )
            for one, known in zip(seen, before, strict=True):
                await one.all_seen(JOBS, known + new, seconds)
            await asyncio.sleep(max(0.0, began + seconds - time.monotonic()))
        finally:
            for one in seen:
                await one.end()


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _filled(bed: Bed, count: int) -> Kubectl:
    kubectl = bed.namespace()
    with bed.operator(kubectl):
        asyncio.run(_fill(bed, kubectl.namespace, count))
    return kubectl


def run(
    servers: Servers,
    pairs: int = 5,
    *,
    few: int = FEW,
    many: int = MANY,
    new: int = NEW,
    seconds: float = WINDOW_SECONDS,
) -> list[Result]:
    """Measure G2k and G3."""
    what = f"operator's CPU per new RenderJob with {many:,} live ones against {few:,}"
    growth = Comparison("G2k", what, "ms", 1.2, lower_is_better=True)
    memory = Absolute("G3", f"operator's memory for each of {many:,} live RenderJobs, after a restart", "KiB", 12)
    with bed(servers.folder / "live", servers.redis_url, controllers=False) as made, ExitStack() as stack:
        kubectls = [_filled(made, count) for count in (few, many)]
        operators = [stack.enter_context(made.operator(kubectl)) for kubectl in kubectls]
        time.sleep(_REST_SECONDS)  # all watches have listed
        small, big = (process.memory_info().rss for process in operators)
        memory.ours.append((big - small) / 1024 / (many - few))
        memory.notes.append(
            f"CPU of the restart, each: {1000 * (_cpu(operators[1]) - _cpu(operators[0])) / (many - few):.2f} ms"
        )
        namespaces = [kubectl.namespace for kubectl in kubectls]
        for _ in range(min(pairs, _MOST_PAIRS)):
            before = [_cpu(process) for process in operators]
            asyncio.run(_arrive(made, namespaces, new, seconds))
            used = [1000 * (_cpu(process) - start) / new for process, start in zip(operators, before, strict=True)]
            growth.reference.append(used[0])
            growth.ours.append(used[1])
    return [growth, memory]
