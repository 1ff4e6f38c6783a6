"""``make dev`` starts the stack again when a source file changes, and takes it down with itself."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from tests.contract.project import ROOT, load_script

dev: ModuleType = load_script("dev")

# A stack that only writes down its process id, and says so when it is asked to go.
STACK = """
import os, pathlib, signal, sys
log = pathlib.Path("stack.log")
def leave(*_):
    with log.open("a") as file:
        file.write(f"stop {os.getpid()}\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
with log.open("a") as file:
    file.write(f"start {os.getpid()}\\n")
while True:
    signal.pause()
"""

WATCH = """
import importlib.util, pathlib, signal, sys
spec = importlib.util.spec_from_file_location("dev", sys.argv[1])
dev = importlib.util.module_from_spec(spec)
spec.loader.exec_module(dev)
dev.LOOK_SECONDS = 0.02
signal.signal(signal.SIGTERM, signal.default_int_handler)
sys.exit(dev.watch([sys.executable, "-c", sys.argv[2]], pathlib.Path.cwd()))
"""


def eventually(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_change_restarts_and_sigterm_stops_everything(tmp_path: Path):
    for folder in dev.SOURCES:
        (tmp_path / folder).mkdir()
    source = tmp_path / "core/a.py"
    source.write_text("x = 1\n")
    log = tmp_path / "stack.log"

    def words() -> list[str]:
        return log.read_text().split()[::2] if log.exists() else []

    command = [sys.executable, "-c", WATCH, str(ROOT / "scripts/dev.py"), STACK]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL) as watcher:
        eventually(lambda: words() == ["start"])
        os.utime(source, ns=(1, 1))
        eventually(lambda: words() == ["start", "stop", "start"])
        watcher.send_signal(signal.SIGTERM)
        assert watcher.wait(20) == 0
    assert words() == ["start", "stop", "start", "stop"]


def test_the_fingerprint_follows_writes_additions_and_removals(tmp_path: Path):
    for folder in dev.SOURCES:
        (tmp_path / folder).mkdir()
    file = tmp_path / "tools/a.py"
    seen = [dev.fingerprint(tmp_path)]
    file.write_text("")
    seen.append(dev.fingerprint(tmp_path))
    os.utime(file, ns=(1, 1))
    seen.append(dev.fingerprint(tmp_path))
    (tmp_path / "docs.md").write_text("not a source")
    assert dev.fingerprint(tmp_path) == seen[-1]
    file.unlink()
    assert dev.fingerprint(tmp_path) == seen[0]
    assert len(set(seen)) == 3


def test_a_stack_that_does_not_listen_is_killed(monkeypatch):
    monkeypatch.setattr(dev, "STOP_SECONDS", 0.2)
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE) as stack:
        assert stack.stdout is not None
        stack.stdout.readline()
        dev.stop(stack)
        assert stack.returncode == -signal.SIGKILL
