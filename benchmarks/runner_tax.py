"""R1: what the runner takes from the render child's main thread, in absolute figures.

A ratio says nothing on a CPU: a tiny UNet makes any cost look huge, a real one makes it vanish.
"""

import statistics
from itertools import pairwise

from benchmarks import traced_sdxl
from benchmarks.harness import Absolute, Result
from benchmarks.stack import Servers
from benchmarks.warm_runner import desk, fresh_runner

_ITEMS = 8
#: Long enough that storing an image is done before the next is denoised, as with every real model.
_STEPS = 20


def run(servers: Servers, pairs: int = 5) -> list[Result]:
    """Measure R1."""
    step = Absolute("R1s", "runner's callback in the child's main thread", "us a step", 100)
    item = Absolute("R1i", "from the end of one item's denoising to the start of the next", "ms an item", 10)
    cpu: list[float] = []
    with desk(servers) as at, fresh_runner(servers, at) as runner:
        runner.render(steps=_STEPS)  # imports and loads
        for _ in range(pairs):
            _, trace = runner.render(count=_ITEMS, steps=_STEPS)
            step.ours.append(statistics.median(line["step_us"] for line in trace))
            cpu += [line["step_cpu_us"] for line in trace]
            item.ours.append(
                statistics.median((after["entered"] - before["ended"]) * 1000 for before, after in pairwise(trace))
            )
        _, compared = runner.render(kind=traced_sdxl.COMPARED_KIND, count=_ITEMS, steps=_STEPS)
    step.notes.append(f"wall time, of which the thread was on a CPU {statistics.median(cpu):.1f} us")
    step.notes.append(
        "a whole step, with the callback "
        f"{statistics.median(line['denoise_ms'] for line in compared):.2f} ms, without "
        f"{statistics.median(line['bare_ms'] for line in compared):.2f} ms"
    )
    return [step, item]
