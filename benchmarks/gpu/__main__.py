"""``python -m benchmarks.gpu [TABLE ...] [--smoke] [--resume]``: rows H1-H10. See ``README.md`` beside this file."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

NAMES = ("H1", "H2", "H3", "H4", "H5", "H6", "H7", "H8", "H9", "H10")
RESULTS = Path("benchmarks/results/gpu.jsonl")
SMOKE_RESULTS = Path(".cache/bench/gpu-smoke.jsonl")
#: A table plans with seven minutes and is ended after eight.
_LIMIT_SECONDS = 480


def main() -> int:
    """A process for each table on a GPU, so that none inherits another's memory; one for all in a smoke run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"of {', '.join(NAMES)}; none: all")
    parser.add_argument("--smoke", action="store_true", help="on the CPU with a narrow model: does it run at all")
    parser.add_argument("--resume", action="store_true", help="leave out tables that the results file has already")
    parser.add_argument("--out", type=Path, help=f"raw figures, a line a table (default {RESULTS})")
    parser.add_argument("--folder", type=Path, help="weights and kernels, 7 GB (default .cache/bench/gpu)")
    arguments = parser.parse_args()
    if unknown := set(arguments.tables) - set(NAMES):
        parser.error(f"no table {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    out = (arguments.out or (SMOKE_RESULTS if arguments.smoke else RESULTS)).absolute()
    done = finished(out, smoke=arguments.smoke) if arguments.resume else set()
    wanted = [name for name in NAMES if name in (arguments.tables or NAMES) and name not in done]
    folder = (
        arguments.folder or Path(".cache/bench/gpu-smoke" if arguments.smoke else ".cache/bench/gpu")
    ).absolute()
    options = ["--out", str(out), "--folder", str(folder)]
    if arguments.smoke:
        print("smoke run: a narrow model on the CPU; its figures say nothing, 'not measured on a GPU'", flush=True)
        hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        # torch's kernels are kept between smoke runs: g++ is slow, and the row is about whether it works.
        hidden |= {"TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"), "TORCHINDUCTOR_VEC_ISA_OK": "1"}
        return run(wanted, ["--smoke", *options], hidden) if wanted else 0
    return max((run([name], options, dict(os.environ)) for name in wanted), default=0)


def run(tables: list[str], options: list[str], environment: dict[str, str]) -> int:
    """One measuring process; a table that hangs is ended and told."""
    command = [sys.executable, "-m", "benchmarks.gpu.run", *tables, *options]
    try:
        return subprocess.run(command, env=environment, timeout=_LIMIT_SECONDS, check=False).returncode
    except subprocess.TimeoutExpired:
        print(f"{', '.join(tables)}: ended after {_LIMIT_SECONDS} s", flush=True)
        return 1


def finished(out: Path, *, smoke: bool) -> set[str]:
    """Tables that the file has figures of, from this kind of run."""
    if not out.exists():
        return set()
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    return {line["table"] for line in lines if line["smoke"] == smoke}


if __name__ == "__main__":
    raise SystemExit(main())
