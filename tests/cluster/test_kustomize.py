"""The manifests people apply: accepted by a real API server without a warning, and no right more than promised."""

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dreamforge_operator import runtimes
from tests.cluster.kubectl import Kubectl

ROOT = Path(__file__).resolve().parents[2]
OVERLAYS = ROOT / "kustomize" / "overlays"
MODELS = ROOT / "kustomize" / "components" / "models"
INSTALL = ROOT / "manifests" / "install.yaml"
PRODUCTION = ROOT / "docs" / "install" / "production.md"
MIGRATION = "dreamforge-migrate"
GOLDEN = Path(__file__).parent / "rbac.golden.json"
RUNNERS = "dreamforge-runners"
ACCOUNTS = {
    "operator": "system:serviceaccount:dreamforge:dreamforge-operator",
    "worker": "system:serviceaccount:dreamforge:dreamforge-worker",
    "api": "system:serviceaccount:dreamforge:dreamforge-api",
    "runner": f"system:serviceaccount:{RUNNERS}:dreamforge-runner",
}


@pytest.fixture(scope="module")
def installed(api_server) -> Kubectl:
    """Namespaces, CRD and rights in place; the rest is only tried (nothing would run it here)."""
    kubectl = Kubectl(api_server.kubeconfig, namespace="")
    for path in ("kustomize/base/namespaces.yaml", "crds/renderjobs.yaml", "kustomize/base/rbac.yaml"):
        kubectl("apply", "-f", ROOT / path)
    kubectl("wait", "--for=condition=Established", "crd/renderjobs.dreamforge.dev", "--timeout=30s")
    privileged = {"pod-security.kubernetes.io/enforce": "privileged"}
    kubectl.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "dreamforge-gpu", "labels": privileged}}
    )
    return kubectl


@pytest.mark.parametrize("overlay", ["e2e", "kind", "k3s", "prod"])
def test_every_overlay_is_accepted_without_a_warning(installed, overlay):
    done = installed.attempt("apply", "--dry-run=server", "-k", OVERLAYS / overlay)

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "deployment.apps/dreamforge-operator" in done.stdout


@pytest.mark.parametrize("overlay", ["kind", "prod"])
def test_models_for_everybody_go_with_every_overlay(installed, overlay, tmp_path):
    """A volume for the worker and one for the runners, and the claims that bind them."""
    parts = {"resources": OVERLAYS / overlay, "components": ROOT / "kustomize" / "components" / "models"}
    own = {name: [os.path.relpath(path, tmp_path)] for name, path in parts.items()}
    head = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump({**head, **own}))
    done = installed.attempt("apply", "--dry-run=server", "-k", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")

    built = list(yaml.safe_load_all(installed("kustomize", tmp_path)))
    claims = {
        (one["metadata"]["namespace"], one["metadata"]["name"]): one["spec"]["volumeName"]
        for one in built
        if one["kind"] == "PersistentVolumeClaim"
    }
    volumes = {one["metadata"]["name"]: one["spec"]["claimRef"] for one in _documents("one-node.yaml")}
    assert {(ref["namespace"], ref["name"]): name for name, ref in volumes.items()} == claims
    (offered,) = [one for one in built if one["metadata"]["name"].startswith("dreamforge-runtimes")]
    (tmp_path / "runtimes.yaml").write_text(offered["data"]["runtimes.yaml"])
    runtime = runtimes.load(tmp_path / "runtimes.yaml").choose_runtime(None, "sdxl-x@1.0")
    assert runtime is not None
    assert runtime.models == {"persistentVolumeClaim": {"claimName": "models", "readOnly": True}}


def test_the_jobs_that_fetch_and_convert_a_model_are_accepted_without_a_warning(installed):
    files = [word for name in ("download", "convert", "one-node") for word in ("-f", MODELS / f"{name}.yaml")]
    done = installed.attempt("create", "--dry-run=server", *files)
    assert (done.returncode, done.stderr) == (0, "")


def _documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((MODELS / name).read_text()))


def test_one_file_to_install_is_the_production_overlay(installed):
    assert INSTALL.read_text() == installed("kustomize", OVERLAYS / "prod"), "run `make manifests`"


@pytest.fixture
def migrations(installed: Kubectl, tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """The Job of the file to install, as files of two versions; the first one is applied."""
    (job,) = [one for one in yaml.safe_load_all(INSTALL.read_text()) if one["metadata"]["name"] == MIGRATION]
    files = (tmp_path / "old.yaml", tmp_path / "new.yaml")
    for file in files:
        job["spec"]["template"]["spec"]["containers"][0]["image"] = f"dreamforge-api:{file.stem}"
        file.write_text(yaml.safe_dump(job))
    installed("apply", "-f", files[0])
    yield files
    installed.within("dreamforge").delete("job", MIGRATION, wait=True)


def test_another_version_is_applied_as_its_page_says(installed, migrations):
    """Without the first command the API server refuses the second."""
    _, new = migrations
    done = installed.attempt("apply", "-f", new)
    assert done.returncode == 1
    assert "field is immutable" in done.stderr
    section = PRODUCTION.read_text().partition("## Upgrades")[2]
    commands = [shlex.split(line) for line in re.findall(r"^kubectl (.*(?:delete|apply).*)$", section, re.M)]
    assert len(commands) == 2
    for command in commands:
        done = installed.attempt(*(new if word == "manifests/install.yaml" else word for word in command))
        assert (done.returncode, done.stderr) == (0, "")
    (container,) = installed.within("dreamforge").get("job", MIGRATION)["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "dreamforge-api:new"


def test_the_same_commands_do_on_an_empty_cluster(installed):
    """`make kind` gives them the first time, too, when not even the namespace is there."""
    done = installed.attempt("-n", "not-there-yet", "delete", "job", MIGRATION, "--ignore-not-found")
    assert (done.returncode, done.stderr) == (0, "")


def test_nobody_has_a_right_more_than_promised(installed):
    found = {name: _rights(installed.within(RUNNERS), user) for name, user in ACCOUNTS.items()}

    assert found == json.loads(GOLDEN.read_text())


@pytest.mark.parametrize("account", ACCOUNTS)
@pytest.mark.parametrize("namespace", ["dreamforge", "kube-system"])
def test_no_right_reaches_another_namespace(installed, account, namespace):
    assert _rights(installed.within(namespace), ACCOUNTS[account]) == []


@pytest.mark.parametrize("overlay", ["e2e", "kind", "k3s", "prod"])
def test_children_name_nothing_that_a_rollout_removes(overlay):
    # A retry hours later must still find what its pod names, so no Secret of the runners carries a hash.
    text = subprocess.run(["kubectl", "kustomize", OVERLAYS / overlay], capture_output=True, text=True, check=True)
    objects = list(yaml.safe_load_all(text.stdout))

    secrets = {item["metadata"]["name"] for item in objects if item["kind"] == "Secret"}
    assert secrets <= {
        "dreamforge-env",
        "dreamforge-operator-env",
        "dreamforge-runner-env",
        "postgres",
        "redis",
        "s3",
    }
    assert all("ttlSecondsAfterFinished" not in item["spec"] for item in objects if item["kind"] == "Job")


def _rights(kubectl: Kubectl, user: str) -> list[str]:
    """``group/resource: verbs`` of a user in a namespace, without what every authenticated user has."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": kubectl.namespace},
    }
    answer = kubectl.as_user(user)("create", "--raw", _REVIEWS, "-f", "-", stdin=json.dumps(review))
    rules = json.loads(answer)["status"]["resourceRules"]
    own = [rule for rule in rules if not set(rule["apiGroups"]) <= {"authorization.k8s.io", "authentication.k8s.io"}]
    return sorted(
        f"{group or 'core'}/{resource}: {' '.join(sorted(rule['verbs']))}"
        for rule in own
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    )


_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
