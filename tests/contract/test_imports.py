"""The layering of ``docs/architecture.md`` holds, on paper (import-linter) and in a live process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.project import ROOT, pyproject

HEAVY = {"torch", "diffusers", "transformers", "accelerate"}

IMPORT_ALL = """
import importlib, json, pkgutil, sys
package = importlib.import_module(sys.argv[1])

def walk(package):
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            found = importlib.import_module(module.name)
            if module.ispkg:
                walk(found)

walk(package)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def loaded_by(package: str) -> set[str]:
    """Top-level packages in memory after importing every module of ``package`` in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, package],
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


@pytest.mark.parametrize("package", ["dreamforge", "dreamforge_api", "dreamforge_cli"])
def test_no_other_part_loads_torch(package: str):
    """The runner's own net is ``test_slim_runner.py``."""
    assert loaded_by(package) & HEAVY == set()


def test_the_command_line_starts_without_what_one_command_needs():
    """`dreamforge --help` in a blink: what talks to Hugging Face is loaded by a download."""
    code = "import dreamforge_cli.main, json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert {"huggingface_hub", "httpx2", "hf_xet", "sqlalchemy", "PIL"} & set(json.loads(done.stdout)) == set()


def test_every_source_root_is_under_contract():
    """A new package joins the contracts the day it joins the wheel."""
    project = pyproject()["tool"]
    packages = {path.rpartition("/")[2] for path in project["hatch"]["build"]["targets"]["wheel"]["packages"]}
    assert set(project["importlinter"]["root_packages"]) == packages
