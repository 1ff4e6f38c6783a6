"""``make`` lists itself, and every target it lists is there to be run."""

import re
import subprocess

import pytest

from tests.contract.project import ROOT

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
LISTED = re.findall(r"^([a-z][a-z0-9-]*):.*?## .+$", MAKEFILE, re.M)

PROMISED = {
    *("setup", "demo", "dev", "inspect-env", "migrate", "revision"),
    *(
        "test",
        "test-unit",
        "test-contract",
        "test-integration",
        "e2e",
        "test-faults",
        "test-cluster",
        "test-compose",
        "cluster-build",
        "cluster-up",
        "cluster-down",
        "soak",
        "test-fuzz",
        "fuzz",
        "bench",
        "golden",
        "s3-server",
    ),
    "images",
    *("lint", "fmt", "type", "verify", "openapi", "crds", "lock"),
}


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def test_make_alone_is_help_and_lists_every_documented_target():
    done = make()
    assert done.returncode == 0, done.stderr
    for target in LISTED:
        assert re.search(rf"^  {target} +\S", done.stdout, re.M), target


def test_the_promised_targets_are_listed():
    assert PROMISED - set(LISTED) == set()


def test_every_target_is_listed_or_a_file():
    """A target without ``##`` would be invisible."""
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", MAKEFILE, re.M))
    assert targets - set(LISTED) == {"test-parts"}


@pytest.mark.parametrize("target", LISTED)
def test_a_listed_target_expands(target: str):
    """A dry run finds typos in names and prerequisites without running anything."""
    done = make("--dry-run", target)
    assert done.returncode == 0, done.stderr


def test_every_script_a_target_calls_exists():
    for script in re.findall(r"scripts/[\w.]+", MAKEFILE):
        assert (ROOT / script).is_file(), script


def test_documents_name_only_targets_that_exist():
    known = set(LISTED)
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for target in re.findall(r"`make ([a-z][a-z0-9-]*)|^make ([a-z][a-z0-9-]*)", page.read_text(), re.M):
            name = target[0] or target[1]
            assert name in known, f"{page.name}: make {name}"
