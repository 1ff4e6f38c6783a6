"""The wheel holds every package and the migrations: hatchling leaves a missing folder out without a word."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.contract.project import ROOT


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Paths inside a wheel built now. The build backend is a locked dependency, so this needs no network."""
    out = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = out.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def test_every_module_is_in_the_wheel(names: set[str]):
    for root in ("core", "api", "operator", "runner-image", "tools"):
        modules = {path.relative_to(ROOT / root).as_posix() for path in (ROOT / root).rglob("*.py")}
        assert modules, root
        assert modules - names == set()


def test_the_migrations_travel_with_the_api(names: set[str]):
    versions = {path.name for path in (ROOT / "migrations/versions").glob("*.py")}
    assert versions
    assert {f"dreamforge_api/migrations/versions/{name}" for name in versions} <= names
    assert "dreamforge_api/migrations/env.py" in names


def test_types_console_script_and_license_are_in(names: set[str]):
    assert "dreamforge/py.typed" in names
    (info,) = {Path(name).parts[0] for name in names if ".dist-info/" in name}
    assert {f"{info}/entry_points.txt", f"{info}/licenses/LICENSE"} <= names


def test_nothing_else_is_in_the_wheel(names: set[str]):
    tops = {Path(name).parts[0] for name in names if ".dist-info/" not in name}
    assert tops == {"dreamforge", "dreamforge_api", "dreamforge_operator", "dreamforge_runner", "dreamforge_cli"}
