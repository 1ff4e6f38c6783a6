"""C1: from dispatch to the first denoise step: a job on a warm runner against the first job of a fresh process."""

import statistics
import time

from benchmarks import traced_sdxl
from benchmarks.harness import Comparison, Result
from benchmarks.stack import Servers
from benchmarks.warm_runner import desk, fresh_runner

_LATER_JOBS = 10
_STEPS = 4


def run(servers: Servers, pairs: int = 5) -> list[Result]:
    """Measure C1."""
    result = Comparison(
        "C1", "start of a later job against the first in a fresh runner", "s to the first step", 0.02, True
    )
    later: list[float] = []
    with desk(servers) as at:
        for _ in range(min(pairs, 3)):
            began = time.monotonic()
            job_id = at.submit(kind=traced_sdxl.KIND, count=1, steps=_STEPS)
            with fresh_runner(servers, at) as runner:
                result.reference.append(runner.await_trace(job_id, 1)[0]["first_step"] - began)
                starts = []
                for _ in range(_LATER_JOBS):
                    dispatched, trace = runner.render(steps=_STEPS)
                    starts.append(trace[0]["first_step"] - dispatched)
                result.ours.append(statistics.median(starts))
                later += starts
    median, slowest = statistics.median(later) * 1000, max(later) * 1000
    result.notes.append(f"{len(later)} later jobs: median {median:.0f} ms, slowest {slowest:.0f} ms")
    return [result]
