"""The Dockerfiles hold what ADR 0014 promises; building and running them is the business of other tiers."""

import ast
import json
import re

import pytest

from tests.contract.project import ROOT, pyproject

DOCKERFILES = {name: ROOT / name / "Dockerfile" for name in ("api", "operator", "runner-image", "tools")}
PACKAGES = {
    "api": "dreamforge_api",
    "operator": "dreamforge_operator",
    "runner-image": "dreamforge_runner",
    "tools": "dreamforge_cli",
}
#: Of the generated client; the rest is pruned from images.
CLUSTER_NAMES = {"ApiClient", "ApiException", "Configuration"}


def instructions(text: str) -> list[tuple[str, str]]:
    """Name and argument of each, continuation lines joined."""
    plain = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", plain)
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in joined.splitlines()) if name]


def stages(name: str) -> list[list[tuple[str, str]]]:
    """What stands before the first FROM, then each stage."""
    found: list[list[tuple[str, str]]] = [[]]
    for instruction in instructions(DOCKERFILES[name].read_text(encoding="utf-8")):
        if instruction[0] == "FROM":
            found.append([])
        found[-1].append(instruction)
    return found


def copied(name: str) -> list[str]:
    """Paths that come from the build context."""
    everything = [rest for stage in stages(name) for kind, rest in stage if kind == "COPY" and "--from" not in rest]
    return [source for rest in everything for source in rest.split()[:-1]]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_base_is_one_argument_that_takes_a_digest(name: str):
    (first, *_), *rest = stages(name)
    assert first == ("ARG", "BASE=python:3.13-slim-bookworm")
    *before, last = (stage[0][1] for stage in rest)
    assert {origin for origin, _, _ in (named.partition(" AS ") for named in before)} == {"${BASE}"}
    assert last == ("system-${EXTRAS}" if name == "runner-image" else "${BASE}")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_it_is_nobody_and_a_program(name: str):
    last = dict(stages(name)[-1])
    assert last["USER"] == "65532:65532", "a name could not be checked by runAsNonRoot"
    assert isinstance(json.loads(last["ENTRYPOINT"]), list), "a shell would not pass SIGTERM on"
    assert "RUN" not in last, "the last stage only copies"


@pytest.mark.parametrize("name", DOCKERFILES)
def test_it_holds_core_and_its_own_package_only(name: str):
    code = {
        source for source in copied(name) if not source.startswith(("locks/", "scripts/", "migrations", "pyproject"))
    }
    assert code == {"core/dreamforge", f"{name}/{PACKAGES[name]}"}
    assert ("migrations" in copied(name)) == (name == "api")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_build_context_has_what_it_copies(name: str):
    allowed = [
        line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"
    ]
    for source in copied(name):
        assert (ROOT / source).exists(), source
        assert any(source == entry or source.startswith(f"{entry}/") for entry in allowed), source


@pytest.mark.parametrize("name", DOCKERFILES)
def test_every_engine_understands_it(name: str):
    text = DOCKERFILES[name].read_text(encoding="utf-8")
    assert "--link" not in text
    assert "<<" not in text
    assert not text.startswith("# syntax"), "the frontend would be one more image to pull"


@pytest.mark.parametrize("name", DOCKERFILES)
def test_everything_but_torch_is_installed_by_hash(name: str):
    (install,) = (rest for kind, rest in stages(name)[1] if kind == "RUN" and "pip" in rest)
    assert "--require-hashes" in install
    assert "--no-deps" in install
    for lock in re.findall(r"locks/\S+", " ".join(copied(name))):
        assert (ROOT / lock).is_file()


def test_only_the_runner_with_sdxl_has_a_compiler():
    runner = {stage[0][1].partition(" AS ")[2]: stage[1:] for stage in stages("runner-image")[1:]}
    (install,) = runner["system-sdxl"]
    assert re.search(r"apt-get install .*--no-install-recommends gcc libc6-dev ", install[1])
    assert runner["system-sketch"] == []
    assert ("ARG", "EXTRAS=sketch") in stages("runner-image")[0]
    assert not any("apt-get" in rest for name in DOCKERFILES for kind, rest in stages(name)[1] if kind == "RUN")


def test_torch_is_the_one_of_pyproject():
    (torch,) = (
        line for line in pyproject()["project"]["optional-dependencies"]["sdxl"] if line.startswith("torch==")
    )
    assert ("ARG", f"TORCH={torch}") in stages("runner-image")[1]


def cluster_imports() -> list[str]:
    """What our code takes from the cluster's client, as ``kubernetes.aio.client.ApiClient``."""
    return [
        name
        for root in ("core", "api", "operator", "runner-image", "tools")
        for path in sorted((ROOT / root).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if re.match(r"kubernetes\b.*\.client\b", name := f"{node.module}.{alias.name}")
    ]


def test_nothing_uses_what_images_leave_out_of_the_cluster_client():
    """``scripts/prune_venv.sh`` removes the generated classes: send and read plain JSON instead."""
    found = {name.rpartition(".")[2] for name in cluster_imports()}
    assert found
    assert found - CLUSTER_NAMES == set()
