"""The supervisor and the render child that sketches load neither torch nor anything of the server's."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ["torch", "diffusers", "transformers", "numpy"]
FOREIGN = ["fastapi", "starlette", "uvicorn", "sqlalchemy", "kopf", "kubernetes", "alembic", "psycopg", "typer"]
PARTS = ["dreamforge_api", "dreamforge_operator", "dreamforge_cli", "dreamforge.db"]

PROGRAM = """
import importlib, json, pkgutil, sys
for name in sys.argv[1].split(","):
    importlib.import_module(name)
print(json.dumps(sorted(sys.modules)))
"""


def loaded_by(*modules: str) -> set[str]:
    command = [sys.executable, "-c", PROGRAM, ",".join(modules)]
    answer = subprocess.run(command, capture_output=True, check=True, timeout=120)
    return set(json.loads(answer.stdout))


@pytest.mark.parametrize(
    "modules",
    [
        ("dreamforge_runner.__main__", "dreamforge_runner.serve", "dreamforge_runner.tasks"),
        ("dreamforge_runner.child", "dreamforge_runner.backends.sketch"),
    ],
    ids=["supervisor", "child"],
)
def test_it_stays_slim(modules: tuple[str, ...]):
    loaded = loaded_by(*modules)
    assert set(modules) <= loaded
    assert [name for name in (*HEAVY, *FOREIGN, *PARTS) if name in loaded] == []


def test_a_whole_render_loads_no_more(tmp_path: Path):
    """Not only importing: rendering a job leaves the supervisor's process as slim."""
    program = tmp_path / "program.py"
    program.write_text(
        "import atexit, json, runpy, sys\n"
        "atexit.register(lambda: open('modules.json', 'w').write(json.dumps(sorted(sys.modules))))\n"
        "sys.argv = ['dreamforge_runner', 'once', 'spec.json']\n"
        "runpy.run_module('dreamforge_runner', run_name='__main__')\n"
    )
    spec = {
        "job_id": "00000000-0000-7000-8000-000000000001",
        "created_at": "2026-01-02T03:04:05Z",
        "correlation_id": "c",
        "params": {"prompt": "a castle", "width": 256, "height": 256},
        "model": {"id": "sketch", "name": "Sketch", "kind": "sketch", "version": "1"},
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    env = {"PATH": "/usr/bin:/bin"}
    subprocess.run(
        [sys.executable, str(program)], cwd=tmp_path, env=env, capture_output=True, check=True, timeout=120
    )
    loaded = set(json.loads((tmp_path / "modules.json").read_text()))
    assert "dreamforge_runner.supervisor" in loaded
    assert [name for name in (*HEAVY, *FOREIGN, *PARTS) if name in loaded] == []
