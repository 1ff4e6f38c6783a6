"""``python -m benchmarks [NAME ...] [--quick]``: run all benchmarks, or those named, and print every ratio."""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import (
    api_post,
    download,
    growth,
    idle_streams,
    ingest,
    killed_ingest,
    operator_live,
    operator_order,
    operator_start,
    post_latency,
    replay,
    runner_tax,
    sse,
    stack,
    verify_models,
    warm_start,
)
from benchmarks.harness import NotMeasuredError, Result, record, table
from benchmarks.stack import Servers
from dreamforge import telemetry

Run = Callable[[Servers, int], Sequence[Result]]
#: By name, with the rows each measures; either may be asked for.
BENCHMARKS: dict[str, tuple[Run, str]] = {
    "ingest": (ingest.run, "E1 E2"),
    "killed_ingest": (killed_ingest.run, "E3"),
    "api_post": (api_post.run, "J1 J3 J3r"),
    "post_latency": (post_latency.run, "J2"),
    "sse": (sse.run, "S1 S1a S2"),
    "idle_streams": (idle_streams.run, "S3"),
    "replay": (replay.run, "S4"),
    "warm_start": (warm_start.run, "C1"),
    "runner_tax": (runner_tax.run, "R1 R1s R1i"),
    "growth": (growth.run, "G1 G2"),
    "operator_start": (operator_start.run, "O1 O1t O2 O3"),
    "operator_order": (operator_order.run, "J4"),
    "operator_live": (operator_live.run, "G2k G3"),
    "download": (download.run, "D1 D2 D4"),
    "verify_models": (verify_models.run, "D3"),
}
PAIRS, QUICK_PAIRS = 5, 1


def main() -> int:
    """Exit 0 whether targets are reached or not: figures inform, they do not gate."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"a benchmark or a row: {_offer()}; none: all")
    parser.add_argument("--quick", action="store_true", help="one pair each: does it run, and roughly how fast")
    parser.add_argument("--out", type=Path, default=Path(".cache/bench/latest.json"), help="file for the raw figures")
    arguments = parser.parse_args()
    wanted = set(arguments.names) or set(BENCHMARKS)
    chosen = [name for name, (_, rows) in BENCHMARKS.items() if wanted & {name, *rows.split()}]
    known = {*BENCHMARKS, *(row for _, rows in BENCHMARKS.values() for row in rows.split())}
    if unknown := wanted - known:
        parser.error(f"unknown benchmark {', '.join(sorted(unknown))}; there are {_offer()}")
    telemetry.configure("bench", "WARNING")
    began = time.monotonic()
    done: list[Result] = []
    with stack.servers() as servers:
        for name in chosen:
            done += measure(name, servers, QUICK_PAIRS if arguments.quick else PAIRS)
        record(arguments.out, done, servers.facts)
    report(done, time.monotonic() - began)
    print(f"raw figures: {arguments.out}")
    return 0


def measure(name: str, servers: Servers, pairs: int) -> Sequence[Result]:
    """Run one benchmark and print its rows."""
    began = time.monotonic()
    print(f"== {name} (load {', '.join(f'{value:.1f}' for value in os.getloadavg())})", flush=True)
    try:
        found = BENCHMARKS[name][0](servers, pairs)
    except NotMeasuredError as error:
        print(f"     {BENCHMARKS[name][1]}: not measured: {error}", flush=True)
        return []
    for result in found:
        print("\n     ".join([result.line(), *result.notes]))
    print(f"   {name} took {time.monotonic() - began:.0f} s with its preparations", flush=True)
    return found


def _offer() -> str:
    return ", ".join(f"{name} ({rows})" for name, (_, rows) in BENCHMARKS.items())


def report(done: list[Result], seconds: float) -> None:
    """The table and the tally."""
    missed = [result.name for result in done if not result.reached]
    print(f"\n{table(done)}\n")
    print(f"{len(done) - len(missed)} of {len(done)} targets reached in {seconds:.0f} s, on CPU only")
    if missed:
        print(f"missed: {', '.join(missed)}")


if __name__ == "__main__":
    raise SystemExit(main())
