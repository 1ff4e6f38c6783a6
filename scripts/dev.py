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


def fingerprint(root: Path) -> int:
    """Changes whenever a source file is written, added or removed."""
    files = (path for folder in SOURCES for path in (root / folder).rglob("*.py"))
    return hash(frozenset((str(path), _written(path)) for path in files))


def _written(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:  # an editor's temporary file, or one that git just took away
        return 0


def stop(stack: subprocess.Popen[bytes]) -> None:
    """Ask, then insist; ``up`` takes its children down within 10 s."""
    if stack.poll() is None:
        stack.send_signal(signal.SIGTERM)
    try:
        stack.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        stack.kill()
        stack.wait()


def watch(command: list[str], root: Path) -> int:
    """Until Ctrl-C or SIGTERM. A stack that ended by itself stays down until the next change."""
    seen = fingerprint(root)
    stack = subprocess.Popen(command, cwd=root)
    try:
        while True:
            time.sleep(LOOK_SECONDS)
            now = fingerprint(root)
            if now != seen:
                seen = now
                sys.stderr.write("dev: a source file changed, starting again\n")
                stop(stack)
                stack = subprocess.Popen(command, cwd=root)
    except KeyboardInterrupt:
        return 0
    finally:
        stop(stack)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(watch([sys.executable, "-m", "dreamforge_cli", "up", *sys.argv[1:]], ROOT))
