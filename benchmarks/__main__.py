"""``python -m benchmarks [NAME ...] [--quick]``: run all benchmarks, or those named, and print every ratio."""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import api_post, ingest, runner_tax, sse, stack, warm_start
from benchmarks.harness import Result, record, table
from benchmarks.stack import Servers
from dreamforge import telemetry

BENCHMARKS: dict[str, Callable[[Servers, int], Sequence[Result]]] = {
    "ingest": ingest.run,
    "api_post": api_post.run,
    "sse": sse.run,
    "warm_start": warm_start.run,
    "runner_tax": runner_tax.run,
}
PAIRS, QUICK_PAIRS = 5, 1


def main() -> int:
    """Exit 0 whether targets are reached or not: figures inform, they do not gate."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; none means all")
    parser.add_argument("--quick", action="store_true", help="one pair each: does it run, and roughly how fast")
    parser.add_argument("--out", type=Path, default=Path(".cache/bench/latest.json"), help="file for the raw figures")
    arguments = parser.parse_args()
    chosen = arguments.names or list(BENCHMARKS)
    if unknown := set(chosen) - BENCHMARKS.keys():
        parser.error(f"unknown benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    telemetry.configure("bench", "WARNING")
    began = time.monotonic()
    done: list[Result] = []
    with stack.servers() as servers:
        for name in chosen:
            print(f"== {name} (load {', '.join(f'{value:.1f}' for value in os.getloadavg())})", flush=True)
            for result in BENCHMARKS[name](servers, QUICK_PAIRS if arguments.quick else PAIRS):
                print("\n     ".join([result.line(), *result.notes]), flush=True)
                done.append(result)
        record(arguments.out, done, servers.facts)
    report(done, time.monotonic() - began)
    print(f"raw figures: {arguments.out}")
    return 0


def report(done: list[Result], seconds: float) -> None:
    """The table and the tally."""
    missed = [result.name for result in done if not result.reached]
    print(f"\n{table(done)}\n")
    print(f"{len(done) - len(missed)} of {len(done)} targets reached in {seconds:.0f} s, on CPU only")
    if missed:
        print(f"missed: {', '.join(missed)}")


if __name__ == "__main__":
    raise SystemExit(main())
