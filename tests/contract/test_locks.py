"""The committed locks are hashed, name no host, agree with each other and satisfy ``pyproject.toml``."""

import re
from collections.abc import Iterator

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.contract.project import ROOT, pyproject

LOCKS = {
    "base": ("embedded", "dev"),
    "sdxl": ("sdxl",),
    "api": ("api", "cluster"),
    "operator": ("operator",),
    "runner": ("runner",),
    "cli": ("cli", "db"),
}
# Installed apart from the locks: its builds share a version, not a hash.
UNLOCKED = {"torch"}


def entries(lock: str) -> list[str]:
    """One logical line for each pinned package, with its hashes."""
    text = (ROOT / "locks" / f"{lock}.txt").read_text(encoding="utf-8")
    return text.replace("\\\n", " ").splitlines()


def pins(lock: str) -> dict[str, set[str]]:
    """Versions by package; more than one where Python versions differ."""
    found: dict[str, set[str]] = {}
    for entry in entries(lock):
        requirement = Requirement(entry.split("--hash")[0])
        (only,) = requirement.specifier
        found.setdefault(canonicalize_name(requirement.name), set()).add(only.version)
    return found


def wanted(extra: str) -> Iterator[Requirement]:
    """What an extra asks for, following ``dreamforge[...]`` to other extras."""
    project = pyproject()["project"]
    for line in project["optional-dependencies"][extra]:
        requirement = Requirement(line)
        if requirement.name == "dreamforge":
            for inner in requirement.extras:
                yield from wanted(inner)
        else:
            yield requirement


@pytest.mark.parametrize("lock", LOCKS)
def test_every_entry_is_an_exact_pin_with_hashes(lock: str):
    shape = re.compile(r"^[a-z0-9-]+(\[[a-z0-9,-]+\])?==\S+( ; [^-]+?)?\s+(--hash=sha256:[0-9a-f]{64}\s*)+$")
    assert [entry for entry in entries(lock) if not shape.match(entry)] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_no_entry_is_a_build_of_one_machine(lock: str):
    """A local version such as ``+cpu`` means that a wheel folder was in the environment while locking."""
    assert [name for name, versions in pins(lock).items() if any("+" in v for v in versions)] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_the_lock_satisfies_pyproject(lock: str):
    pinned = pins(lock)
    base = [Requirement(line) for line in pyproject()["project"]["dependencies"]]
    for extra in LOCKS[lock]:
        for requirement in [*base, *wanted(extra)]:
            name = canonicalize_name(requirement.name)
            if name in UNLOCKED:
                assert name not in pinned
                continue
            assert name in pinned, f"{name} is missing: make lock"
            assert all(requirement.specifier.contains(v) for v in pinned[name]), f"{requirement}: make lock"


def test_both_locks_can_be_installed_into_one_environment():
    base, sdxl = pins("base"), pins("sdxl")
    assert {name: (base[name], sdxl[name]) for name in base.keys() & sdxl.keys() if base[name] != sdxl[name]} == {}


@pytest.mark.parametrize("image", ["api", "operator", "runner"])
def test_an_image_installs_what_was_tested(image: str):
    """Each lock of an image is a part of the base lock, pin for pin."""
    base, own = pins("base"), pins(image)
    assert {name: versions for name, versions in own.items() if not versions <= base.get(name, set())} == {}
    assert len(own) < len(base)


def test_torch_is_pinned_exactly_and_brings_its_stack_itself():
    (torch,) = [r for r in wanted("sdxl") if r.name == "torch"]
    assert str(torch.specifier).startswith("==")
    assert [
        n for n in pins("sdxl") if n.startswith(("cuda-", "triton")) or (n[:7] == "nvidia-" and n != "nvidia-ml-py")
    ] == []
