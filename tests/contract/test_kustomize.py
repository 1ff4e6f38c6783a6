"""What the manifests name is there, and goes together. ``tests/cluster/test_kustomize.py`` asks a real API server."""

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.contract.manifests import Object, built, kubectl
from tests.contract.project import ROOT

OVERLAYS = sorted(path.parent for path in (ROOT / "kustomize/overlays").glob("*/kustomization.yaml"))
COMPONENTS = sorted(path.parent for path in (ROOT / "kustomize/components").glob("*/kustomization.yaml"))
KUSTOMIZATIONS = [*sorted((ROOT / "kustomize").rglob("kustomization.yaml")), ROOT / "crds/kustomization.yaml"]
SAMPLES = sorted((ROOT / "manifests/samples").glob("*.yaml"))
TILTFILE = (ROOT / "Tiltfile").read_text(encoding="utf-8")
GPU = "nvidia.com/gpu"

PATHS = {"resources", "components"}
FILES = {"configMapGenerator", "secretGenerator"}
NO_PATHS = {"apiVersion", "kind", "labels", "images", "generatorOptions"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def load(path: Path) -> list[Object]:
    return [item for item in yaml.safe_load_all(path.read_text(encoding="utf-8")) if item]


def the(objects: list[Object], kind: str, name: str) -> Object:
    """The only one whose name begins so; generated names end with a hash."""
    (found,) = [item for item in objects if item["kind"] == kind and item["metadata"]["name"].startswith(name)]
    return found


def named(content: Object) -> Iterator[str]:
    """Every file and folder that a kustomization names."""
    for key in PATHS & content.keys():
        yield from content[key]
    yield from (patch["path"] for patch in content.get("patches", []) if "path" in patch)
    for key in FILES & content.keys():
        for generator in content[key]:
            for entry in [*generator.get("files", []), *generator.get("envs", [])]:
                yield entry.partition("=")[2] or entry


@pytest.mark.parametrize("path", KUSTOMIZATIONS, ids=name_of)
def test_every_path_that_is_named_exists(path: Path):
    (content,) = load(path)
    assert content.keys() <= PATHS | FILES | NO_PATHS | {"patches"}, "say above whether the new field names paths"
    for name in named(content):
        there = path.parent / name
        assert (there / "kustomization.yaml" if there.is_dir() else there).is_file(), name


@pytest.mark.parametrize("component", COMPONENTS, ids=name_of)
def test_every_component_is_built_over_the_base(component: Path, tmp_path: Path):
    head = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
    base, own = (os.path.relpath(path, tmp_path) for path in (ROOT / "kustomize/base", component))
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump({**head, "resources": [base], "components": [own]}))
    built(tmp_path)


@pytest.mark.parametrize("overlay", OVERLAYS, ids=name_of)
def test_every_overlay_is_built(overlay: Path):
    operator = the(built(overlay), "Deployment", "dreamforge-operator")
    assert operator["metadata"]["namespace"] == "dreamforge"


def test_runners_of_the_development_overlay_ask_for_no_gpu():
    """It builds on the one of the end-to-end test, whose cluster pretends to have one."""
    settings = the(built(ROOT / "kustomize/overlays/tilt"), "ConfigMap", "dreamforge-runtimes")
    offered = yaml.safe_load(settings["data"]["runtimes.yaml"])["runtimes"]
    assert offered.keys() == {"default"}
    for runtime in offered.values():
        assert runtime["serviceAccountName"] == "dreamforge-runner"
        assert all(GPU not in asked for asked in runtime["resources"].values())


def test_samples_of_the_tiltfile_ask_for_no_gpu():
    """By default a RenderJob asks for one, and a development cluster need not have any."""
    names = re.search(r"^for sample in \[(.+)\]:$", TILTFILE, re.M)
    command = re.search(r'^NO_GPU = """kubectl (.+)"""$', TILTFILE, re.M)
    assert names is not None
    assert command is not None
    assert re.search(r"^        NO_GPU % sample \+ ' \| kubectl ", TILTFILE, re.M)
    for sample in re.findall(r"'(\w+)'", names[1]):
        (made,) = yaml.safe_load_all(kubectl(*shlex.split(command[1] % sample)))
        assert made["metadata"]["name"] == sample
        assert made["spec"]["gpu"]["count"] == 0


def test_samples_wait_in_queues_that_are_shipped():
    shipped = [item for path in (ROOT / "kustomize/components/kueue").glob("*.yaml") for item in load(path)]
    queues = {
        item["metadata"]["name"]
        for item in shipped
        if item["kind"] == "LocalQueue" and item["metadata"]["namespace"] == "dreamforge-runners"
    }
    classes = {item["metadata"]["name"] for item in shipped if item["kind"] == "WorkloadPriorityClass"}
    asked = [item["spec"]["queue"] for path in SAMPLES for item in load(path) if "queue" in item["spec"]]
    assert asked
    for queue in asked:
        assert queue["name"] in queues
        assert queue.get("priorityClassName") in {None, *classes}
