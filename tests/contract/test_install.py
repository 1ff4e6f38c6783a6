"""The pages under docs/install say what the manifests need, and ``scripts/kind.sh`` does what its page says."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.contract.manifests import built
from tests.contract.project import ROOT

PARTS = ("api", "worker", "operator")
FORGET = "kubectl -n dreamforge delete job dreamforge-migrate --ignore-not-found"


def page(name: str) -> str:
    return (ROOT / "docs/install" / name).read_text(encoding="utf-8")


def loaded(name: str) -> set[str]:
    """The images that a page gives to its cluster."""
    saved = re.search(r"^ *docker save ([^|]+) \|", page(name), re.M)
    if saved is not None:
        return set(saved[1].split())
    looped = re.search(
        r"^for part in ([\w ]+); do kind load docker-image .* (\S+)\$part(:\S+); done$", page(name), re.M
    )
    assert looped is not None
    return {looped[2] + part + looped[3] for part in looped[1].split()}


def used(overlay: str) -> set[str]:
    """Our own images, as pods of this overlay name them; those of runners are in a variable of the operator."""
    works = [item for item in built(ROOT / "kustomize/overlays" / overlay) if item["kind"] in ("Deployment", "Job")]
    containers = [one for item in works for one in item["spec"]["template"]["spec"]["containers"]]
    images = {one["image"] for one in containers}
    runners = {e["value"] for one in containers for e in one.get("env", []) if e["name"] == "DF_RUNNER_IMAGE"}
    assert len(runners) == 1
    return images | runners


@pytest.mark.parametrize("name", ["k3s", "kind"])
def test_the_page_loads_the_images_that_its_overlay_uses(name: str):
    assert loaded(f"{name}.md") == used(name)


def recorded(tmp_path: Path) -> list[str]:
    """What ``scripts/kind.sh`` calls, in order, on a machine whose programs only write that down."""
    log = tmp_path / "log"
    script = tmp_path / "scripts" / "kind.sh"
    script.parent.mkdir()
    script.write_text((ROOT / "scripts/kind.sh").read_text(encoding="utf-8"))
    for program in ("bin/kind", "bin/kubectl", "scripts/load_image.sh"):
        path = tmp_path / program
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            f'#!/bin/sh\necho "{path.name} $*" >>"{log}"\n[ "$1 $2" != "get clusters" ] || echo dreamforge\n'
        )
        path.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    subprocess.run(["bash", script], env=environment, check=True, capture_output=True, timeout=60)
    return log.read_text().splitlines()


def test_make_kind_brings_a_change_into_a_cluster_that_is_there(tmp_path: Path):
    """With the same tag as before: what is applied is the same, and a Job that has run does not run again."""
    calls = recorded(tmp_path)
    apply = calls.index("kubectl apply -k kustomize/overlays/kind")
    assert calls.index(FORGET) < apply
    for part in PARTS:
        restart = calls.index(f"kubectl -n dreamforge rollout restart deployment/dreamforge-{part}")
        wait = calls.index(f"kubectl -n dreamforge rollout status deployment/dreamforge-{part} --timeout=300s")
        assert apply < restart < wait
    images = {call.split()[2] for call in calls if call.startswith("load_image.sh")}
    assert images == loaded("kind.md")
    assert max(i for i, call in enumerate(calls) if call.startswith("load_image.sh")) < apply


@pytest.mark.parametrize(
    ("name", "apply"),
    [
        ("kind.md", "kubectl apply -k kustomize/overlays/kind"),
        ("production.md", "kubectl apply -f manifests/install.yaml"),
    ],
)
def test_the_page_removes_the_last_migration_before_it_applies_another(name: str, apply: str):
    assert f"{FORGET}\n{apply}\n" in page(name)


def test_the_file_to_install_says_it_too():
    text = (ROOT / "manifests/install.yaml").read_text(encoding="utf-8")
    assert FORGET in " ".join(text.split())
