"""Scripts that people run first, on machines that lack something; copies of them beside programs of the tests."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.contract.project import ROOT

#: Plays Python, and then the one of the venv that it made: without `whole` there is no pip to put into it.
PYTHON = """#!/bin/sh
case "$*" in
  *version_info*) ;;
  *sys.executable*) echo "$0" ;;
  --version) echo Python 3.11.0 ;;
  "-m venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python && test -e whole ;;
  "-m pip --version") test -e whole ;;
  "-m pip install "*) printf '#!/bin/sh\\necho uv of the venv\\n' > .venv/bin/uv && chmod +x .venv/bin/uv ;;
  *) echo "not expected: $*" >&2; exit 9 ;;
esac
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with its scripts and nothing else."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    return tmp_path


def program(folder: Path, name: str, text: str) -> Path:
    made = folder / name
    made.parent.mkdir(exist_ok=True)
    made.write_text(text)
    made.chmod(0o755)
    return made


def run(folder: Path, script: str, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    settings = {"PATH": f"{folder / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin", **environment}
    line = ["bash", str(folder / "scripts" / script), *arguments]
    return subprocess.run(line, env=settings, capture_output=True, text=True, check=False, timeout=60)


def test_a_venv_that_could_not_be_made_is_made_once_it_can(folder: Path):
    program(folder, "bin/uv", "#!/bin/sh\nexit 1\n")  # whatever this machine has
    python = program(folder, "python", PYTHON)
    failed = run(folder, "setup.sh", "uv", PYTHON=str(python))
    assert failed.returncode == 1
    assert "apt install python3-venv" in failed.stderr
    (folder / "whole").touch()
    done = run(folder, "setup.sh", "uv", PYTHON=str(python))
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["uv of the venv"]), done.stderr
    again = run(folder, "setup.sh", "uv", PYTHON=str(python))
    assert again.stdout == "uv of the venv\n", "nothing to make"


@pytest.mark.parametrize("password", ["a/b", "p@ss", "a#b", "a?b", "%41", "a b", 'quo"te', "new\nline", "p:q"])
def test_a_password_that_would_break_a_url_is_refused(folder: Path, password: str):
    program(folder, "bin/docker", "#!/bin/sh\necho docker $*\n")
    refused = run(folder, "compose.sh", "ps", DF_COMPOSE_PASSWORD=password)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "DF_COMPOSE_PASSWORD" in refused.stderr
    assert password not in refused.stderr


@pytest.mark.parametrize(
    ("line", "good"),
    [
        ("DF_COMPOSE_PASSWORD=0a.b-c_d~e", True),
        ("DF_COMPOSE_PASSWORD='plain'", True),
        ("DF_COMPOSE_PASSWORD=a/b", False),
        ('DF_COMPOSE_PASSWORD="a@b"', False),
        ("DF_COMPOSE_PASSWORD=plain # a/b", True),
        ("# DF_COMPOSE_PASSWORD=a/b", True),
        ("", True),
    ],
)
def test_the_password_of_the_env_file_is_judged_the_same(folder: Path, line: str, good: bool):
    program(folder, "bin/docker", "#!/bin/sh\necho docker $*\n")
    (folder / ".env").write_text(f"DF_LOG_LEVEL=INFO\n{line}\n")
    done = run(folder, "compose.sh", "ps")
    assert (done.returncode == 0, done.stdout.endswith("compose.yaml ps\n")) == (good, good), done.stderr
