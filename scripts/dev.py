"""``make dev``: run ``dreamforge up`` and start it again whenever a source file changes.

Reading modification times twice a second needs no library and no kernel feature, and is cheap for a tree this size.
Arguments go to ``dreamforge up``.
"""

import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("core", "api", "runner-image", "tools", "migrations")
LOOK_SECONDS = 0.5
STOP_SECONDS = 15.0


def newest_change() -> float:
    """The latest modification time of any source file, in seconds since the epoch."""
    return max(path.stat().st_mtime for folder in SOURCES for path in (ROOT / folder).rglob("*.py"))


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "dreamforge_cli", "up", *arguments]
    return subprocess.Popen(command, cwd=ROOT)


def stop(stack: subprocess.Popen[bytes]) -> None:
    """Ask, then insist; ``up`` takes its children down within 10 s."""
    if stack.poll() is None:
        stack.send_signal(signal.SIGTERM)
    try:
        stack.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        stack.kill()
        stack.wait()


def watch(arguments: list[str]) -> int:
    """Until Ctrl-C. A stack that ended by itself stays down until the next change."""
    seen = newest_change()
    stack = start(arguments)
    try:
        while True:
            time.sleep(LOOK_SECONDS)
            changed = newest_change()
            if changed > seen:
                seen = changed
                sys.stderr.write("dev: a source file changed, starting again\n")
                stop(stack)
                stack = start(arguments)
    except KeyboardInterrupt:
        return 0
    finally:
        stop(stack)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(watch(sys.argv[1:]))
