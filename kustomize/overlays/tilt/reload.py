"""``reload.py PROGRAM [ARGUMENT]...``: run it, and run it anew whenever a Python file below /app has changed."""

import os
import signal
import subprocess
import sys
import time

CODE = "/app"
POLL_SECONDS = 0.5


def newest() -> float:
    """When the code was last changed."""
    files = (os.path.join(folder, name) for folder, _, names in os.walk(CODE) for name in names)
    return max((changed(file) for file in files if file.endswith(".py")), default=0.0)


def changed(file: str) -> float:
    """Files come and go while they are looked at."""
    try:
        return os.stat(file).st_mtime
    except FileNotFoundError:
        return 0.0


def stop(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(10)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def main(command: list[str]) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    while True:
        seen = newest()
        child = subprocess.Popen(command)
        try:
            # A program that ended by itself waits for a change: most likely the one that broke it.
            while newest() == seen:
                time.sleep(POLL_SECONDS)
        finally:
            stop(child)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
