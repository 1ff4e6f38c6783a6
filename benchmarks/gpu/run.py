"""Runs the named tables in this process and appends what they found to a file: the part that imports torch."""

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.gpu import engine_tables, runner_tables
from benchmarks.gpu.bench import Bench, Row, facts
from dreamforge import telemetry

TABLES: Mapping[str, Callable[[Bench], Sequence[Row]]] = {
    "H1": engine_tables.h1,
    "H2": engine_tables.h2,
    "H3": engine_tables.h3,
    "H4": runner_tables.h4,
    "H5": runner_tables.h5,
    "H6": engine_tables.h6,
    "H7": runner_tables.h7,
    "H8": runner_tables.h8,
    "H9": engine_tables.h9,
    "H10": engine_tables.h10,
}


def main() -> int:
    """Every table that was named; a table that fails does not keep the next from running."""
    parser = argparse.ArgumentParser()
    parser.add_argument("tables", nargs="+", choices=list(TABLES))
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--budget", type=float, default=420.0)
    arguments = parser.parse_args()
    telemetry.configure("bench", "WARNING")
    bench = Bench(arguments.smoke, arguments.folder, arguments.budget)
    failed = 0
    for name in arguments.tables:
        try:
            measure(bench, name, arguments.out)
        except Exception as error:  # noqa: BLE001 - one table's failure is told and is not the others'
            print(f"{name}: FAILED: {type(error).__name__}: {error}", flush=True)
            failed += 1
    runner_tables.close()
    return 1 if failed else 0


def measure(bench: Bench, name: str, out: Path) -> None:
    """One table: print its rows, append its raw figures."""
    began, before = time.monotonic(), facts(bench)
    rows = TABLES[name](bench)
    took = time.monotonic() - began
    for row in rows:
        print(row.line(smoke=bench.smoke), flush=True)
    print(f"        {name} took {took:.0f} s", flush=True)
    document = {
        "table": name,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "smoke": bench.smoke,
        "seconds": round(took, 1),
        "before": before,
        "after": facts(bench),
        "rows": [{**asdict(row), "ratio": row.ratio, "tflops": row.tflops} for row in rows],
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("a") as file:
        file.write(json.dumps(document) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
