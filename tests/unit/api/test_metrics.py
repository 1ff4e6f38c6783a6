"""Counts that several processes share through files."""

import os
import subprocess
import sys
from pathlib import Path

from dreamforge_api import metrics

KILLED = """
import os
from dreamforge_api import metrics
metrics.SSE_SUBSCRIBERS.inc(3)
metrics.SSE_SUPERSEDED.inc(5)
os._exit(9)
"""


def test_streams_of_a_killed_process_are_open_no_more_and_what_it_counted_stays(tmp_path: Path):
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    assert subprocess.run([sys.executable, "-c", KILLED], env=environment, check=False).returncode == 9
    assert b"dreamforge_sse_subscribers 3.0" in metrics.render(tmp_path)
    metrics.forget_killed(tmp_path)
    shown = metrics.render(tmp_path)
    assert b"dreamforge_sse_subscribers" not in shown
    assert b"dreamforge_sse_superseded_total 5.0" in shown


def test_streams_of_a_living_process_stay(tmp_path: Path):
    living = tmp_path / f"gauge_livesum_{os.getpid()}.db"
    living.write_bytes(b"")
    metrics.forget_killed(tmp_path)
    assert living.exists()
    metrics.forget_killed(None)
