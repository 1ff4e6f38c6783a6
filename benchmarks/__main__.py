"""``python -m benchmarks [NAME ...]``: run all benchmarks, or those named, and print every ratio."""

import sys
from pathlib import Path

from benchmarks import ingest, stack
from benchmarks.harness import Comparison, record

BENCHMARKS = {"ingest": ingest.run}


def main() -> int:
    """Exit 0 whether targets are reached or not: figures inform, they do not gate."""
    chosen = sys.argv[1:] or list(BENCHMARKS)
    if unknown := set(chosen) - BENCHMARKS.keys():
        print(f"unknown benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    done: list[Comparison] = []
    with stack.servers() as servers:
        for name in chosen:
            done += BENCHMARKS[name](servers)
    record(Path(".cache/bench/latest.json"), done)
    missed = [c.name for c in done if not c.reached]
    print(
        f"{len(done) - len(missed)} of {len(done)} targets reached"
        + (f"; missed: {', '.join(missed)}" if missed else "")
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
