"""The layering of ``docs/architecture.md`` holds, on paper (import-linter) and in a live process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.project import ROOT, pyproject

NOT_IN_A_RUNNER = {"fastapi", "starlette", "uvicorn", "sqlalchemy", "psycopg", "alembic", "kopf", "kubernetes"}
NOT_WITHOUT_SDXL = {"torch", "diffusers", "transformers", "accelerate"}

IMPORT_ALL = """
import importlib, json, pkgutil, sys
package = importlib.import_module(sys.argv[1])
skipped = tuple(sys.argv[2:])

def walk(package):
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        if module.name not in skipped and not module.name.endswith("__main__"):
            found = importlib.import_module(module.name)
            if module.ispkg:
                walk(found)

walk(package)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def loaded_by(package: str, *skipped: str) -> set[str]:
    """Top-level packages in memory after importing every module of ``package`` in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, package, *skipped],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def lint_imports(config: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [program, "--no-cache", "--config", config],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_import_contracts_hold():
    done = lint_imports(ROOT / "pyproject.toml")
    assert done.returncode == 0, done.stdout


def test_a_broken_contract_is_noticed(tmp_path: Path):
    """The same machinery refuses an import that exists, so a pass above means something."""
    config = tmp_path / "pyproject.toml"
    config.write_text(
        '[tool.importlinter]\nroot_packages = ["dreamforge"]\n'
        '[[tool.importlinter.contracts]]\nname = "impossible"\ntype = "forbidden"\n'
        'source_modules = ["dreamforge.events"]\nforbidden_modules = ["dreamforge.errors"]\n'
    )
    assert lint_imports(config).returncode == 1


def test_the_runner_is_slim():
    assert (
        loaded_by("dreamforge_runner", "dreamforge_runner.backends.sdxl") & (NOT_IN_A_RUNNER | NOT_WITHOUT_SDXL)
        == set()
    )


@pytest.mark.parametrize("package", ["dreamforge", "dreamforge_api", "dreamforge_cli"])
def test_nothing_else_loads_torch(package: str):
    assert loaded_by(package) & NOT_WITHOUT_SDXL == set()


def test_every_source_root_is_under_contract():
    """A new package joins the contracts the day it joins the wheel."""
    project = pyproject()["tool"]
    packages = {path.rpartition("/")[2] for path in project["hatch"]["build"]["targets"]["wheel"]["packages"]}
    assert set(project["importlinter"]["root_packages"]) == packages
