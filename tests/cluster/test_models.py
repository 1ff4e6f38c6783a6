"""The Job that puts a model on the volume: real pods of its image, where only restricted ones are admitted."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.kubectl import Kubectl, Object
from tests.model_kit import CONFIG, checkpoint

ROOT = Path(__file__).resolve().parents[2]
JOB = ROOT / "kustomize" / "components" / "models" / "download.yaml"


@pytest.fixture
def job(cli_image: str) -> Object:
    """As a person makes it, with a volume of its own."""
    text = JOB.read_text().replace("REF", "nowhere:x").replace("dreamforge-cli:TAG", cli_image)
    made: Object = yaml.safe_load(text)
    del made["metadata"]["namespace"]
    spec = pod_of(made)
    spec["volumes"][0] = {"name": "models", "emptyDir": {"sizeLimit": "64Mi"}}
    return made


def pod_of(job: Object) -> Any:
    return job["spec"]["template"]["spec"]


def test_it_installs_a_model_as_nobody_on_a_read_only_root(namespace: Kubectl, job: Object):
    files = {"sdxl-x.safetensors": checkpoint(), **{f"config/{name}": content for name, content in CONFIG.items()}}
    keys = {name: name.replace("/", "_") for name in files}
    data = {keys[name]: base64.b64encode(content).decode() for name, content in files.items()}
    head = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "here"}}
    namespace.apply({**head, "binaryData": data})
    spec = pod_of(job)
    items = [{"key": key, "path": name} for name, key in keys.items()]
    spec["volumes"].append({"name": "here", "configMap": {"name": "here", "items": items}})
    (container,) = spec["containers"]
    container["volumeMounts"].append({"name": "here", "mountPath": "/here"})
    container["args"] = ["model", "adopt", "/here/sdxl-x.safetensors", "--config", "/here/config", "--json"]
    name = namespace.create(job)["metadata"]["name"]
    namespace.wait_condition("job", name, "Complete", timeout=180)
    told = json.loads(namespace("logs", f"job/{name}").splitlines()[-1])
    assert told["id"].startswith("sdxl-x@")


def test_a_reference_that_means_nothing_fails_at_once_and_says_why(namespace: Kubectl, job: Object):
    name = namespace.create(job)["metadata"]["name"]
    namespace.wait_condition("job", name, "Failed", timeout=180)
    assert len(namespace.list("pods")) == 1, "the same again would fail the same"
    assert "no source is called 'nowhere'" in namespace("logs", f"job/{name}")
