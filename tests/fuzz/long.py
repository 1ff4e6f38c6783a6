"""The long form: ``python -m tests.fuzz.long --calls 10000`` prints calls by operation and what broke a promise.

Ends with 1 when something did; the system's folder then stays for a look.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import schemathesis

from tests.fuzz import attack
from tests.fuzz.system import Target


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.long", description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000, help="how many calls at least")
    parser.add_argument("--seed", type=int, help="the seed of an earlier run")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().getrandbits(32)
    print(f"seed {seed}, {arguments.calls} calls", flush=True)
    home = Path(tempfile.mkdtemp(prefix="dreamforge-fuzz-"))
    target = Target(home / "data")
    try:
        target.start()
        begun = time.monotonic()
        account = attack.run(target.up.url, arguments.calls, seed)
        seconds = time.monotonic() - begun
        ends, defects = target.drained(600), target.defects()
    finally:
        target.end()
    figures = _figures(account, ends, defects) | {"seed": seed, "seconds": round(seconds, 1)}
    _print(account, figures)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    good = not (account.violations or account.server_errors or defects or ends["failed"])
    if good:
        shutil.rmtree(home)
    else:
        print(f"the system's folder is kept: {home}")
    return 0 if good else 1


def _figures(account: attack.Account, ends: Counter[str], defects: list[str]) -> dict[str, Any]:
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "schemathesis": schemathesis.__version__,
        "calls": account.total,
        "server_errors": account.server_errors,
        "violations": len(account.violations),
        "traces_in_the_log": len(defects),
        "jobs": dict(sorted(ends.items())),
        "by_phase": dict(account.phases),
        "by_check": dict(account.judged),
        "by_operation": {
            label: {str(status): count for status, count in sorted(statuses.items())}
            for label, statuses in account.by_operation().items()
        },
    }


def _print(account: attack.Account, figures: dict[str, Any]) -> None:
    for label, statuses in account.by_operation().items():
        told = "  ".join(f"{status}: {count}" for status, count in sorted(statuses.items()))
        print(f"  {label:<42}{statuses.total():>7}   {told}")
    for name in ("by_phase", "by_check", "jobs"):
        print(f"\n{name.replace('_', ' ')}")
        for word, count in figures[name].items():
            print(f"  {word:<42}{count:>7}")
    print(f"\n{figures['calls']} calls in {figures['seconds']:.0f} s: {figures['server_errors']} of 5xx, ", end="")
    print(f"{figures['violations']} violations, {figures['traces_in_the_log']} traces in the log", flush=True)
    for violation in account.violations[:50]:
        print(f"\n{violation}")


if __name__ == "__main__":
    sys.exit(main())
