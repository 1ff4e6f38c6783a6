"""One supervised child, with real processes: started again when killed, logged, stopped with all it started."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from dreamforge_cli.embedded.launch import launch
from dreamforge_cli.up.logs import LogFile
from dreamforge_cli.up.process import Spec, Supervised
from dreamforge_cli.up.stack import say
from tests.processes import gone

SLEEPER = "import signal, sys; print('alive', flush=True); signal.pause()"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True)\nwhile 1: signal.pause()"
PARENT = (
    "import subprocess, sys, signal\n"
    "p = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'])\n"
    "print(p.pid, flush=True); signal.pause()"
)


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        await asyncio.sleep(0.02)


class Bench:
    """One child, what it said, and its log."""

    def __init__(self, folder: Path, code: str, **more: object) -> None:
        self.said: list[str] = []
        self.patience = 10.0
        self.folder = folder
        spec = Spec(
            "child",
            lambda: launch([sys.executable, "-c", code], death_signal=signal.SIGTERM),
            {},
            **more,  # type: ignore[arg-type]
        )
        self.child = Supervised(spec, LogFile(folder, "child"), self.said.append)

    def logged(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in (self.folder / "child.ndjson").read_text().splitlines()]

    def run(self, story: Callable[["Bench"], Awaitable[None]]) -> None:
        async def whole() -> None:
            task = asyncio.create_task(self.child.run())
            try:
                await story(self)
            finally:
                await self.child.stop(self.patience)
                await asyncio.wait_for(task, 20)
                self.child.log.close()

        asyncio.run(whole())


def test_a_killed_child_is_started_again(tmp_path):
    async def story(bench):
        await until(lambda: len(bench.logged()) == 1)
        first = bench.child.pid
        os.kill(first, signal.SIGKILL)
        await until(lambda: len(bench.logged()) == 2)
        assert bench.child.pid != first
        assert bench.said == ["child: ended (signal 9); starting again in 0.2 s"]

    bench = Bench(tmp_path, SLEEPER)
    bench.run(story)
    assert bench.child.pid
    assert gone(bench.child.pid)


class Hung:
    """A terminal that went away."""

    def write(self, text: str) -> int:
        raise BrokenPipeError

    def flush(self) -> None:
        raise BrokenPipeError


def test_a_child_is_kept_though_nobody_reads_and_no_log_can_be_written(tmp_path, monkeypatch):
    (tmp_path / "child.ndjson").symlink_to("/dev/full")
    monkeypatch.setattr(sys, "stderr", Hung())

    async def story(bench):
        bench.child.say = say
        await until(lambda: bench.child.pid)
        first = bench.child.pid
        os.kill(first, signal.SIGKILL)
        await until(lambda: bench.child.pid != first)

    Bench(tmp_path, SLEEPER).run(story)


def test_what_a_killed_child_had_started_goes_with_it(tmp_path):
    async def story(bench):
        await until(lambda: len(bench.logged()) == 1)
        grandchild = int(bench.logged()[0]["message"])
        os.kill(bench.child.pid, signal.SIGKILL)
        await until(lambda: gone(grandchild))

    Bench(tmp_path, PARENT).run(story)


def test_a_child_deaf_to_sigterm_is_killed(tmp_path):
    async def story(bench):
        await until(lambda: len(bench.logged()) == 1)

    bench = Bench(tmp_path, DEAF)
    bench.patience = 0.3
    bench.run(story)
    assert bench.child.pid
    assert gone(bench.child.pid)
    assert any("killed" in line for line in bench.said)


def test_stopping_while_it_waits_to_start_again_is_quick_and_final(tmp_path):
    async def story(bench):
        await until(lambda: len(bench.said) >= 4)

    bench = Bench(tmp_path, "import sys; sys.exit('cannot')")
    bench.run(story)
    assert bench.said[0] == "child: ended (exit 1: cannot); starting again in 0.2 s"
    assert [line.rsplit(" in ")[1] for line in bench.said[:4]] == ["0.2 s", "0.4 s", "0.8 s", "1.6 s"]


def test_a_command_that_is_not_there_is_tried_again_and_said(tmp_path):
    async def story(bench):
        await until(lambda: len(bench.said) >= 2)

    bench = Bench(tmp_path, "")
    object.__setattr__(bench.child.spec, "launch", lambda: launch(["/nowhere/program"]))
    bench.run(story)
    assert "/nowhere/program" in bench.said[0]


def test_work_that_is_done_once_is_not_started_again(tmp_path):
    async def story(bench):
        await until(lambda: bool(bench.logged()))

    bench = Bench(tmp_path, "print('done')", once=True)
    bench.run(story)
    assert len(bench.logged()) == 1
    assert bench.said == []


def test_a_wrong_setting_is_told_apart_from_a_crash(tmp_path):
    async def story(bench):
        await asyncio.wait_for(bench.child.refused.wait(), 20)
        assert bench.child.last_line == "DF_X: must be a number"

    Bench(tmp_path, "import sys; print('DF_X: must be a number', file=sys.stderr); sys.exit(2)").run(story)


@pytest.mark.parametrize(("line", "shown"), [("warning", True), ("info", False)])
def test_only_warnings_and_worse_reach_the_terminal(tmp_path, line, shown):
    async def story(bench):
        await until(lambda: bool(bench.logged()))

    bench = Bench(tmp_path, f'print(\'{{"level": "{line}", "message": "m"}}\')', once=True)
    bench.run(story)
    assert ("child: m" in bench.said) is shown
