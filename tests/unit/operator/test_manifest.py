"""The child Job: what it asks for, what it must never carry."""

import json
from typing import Any

import pytest

from dreamforge.errors import FACTS
from dreamforge.renderjob import names
from dreamforge.renderjob.resource import RenderJob
from dreamforge.spec import RenderSpec
from dreamforge_operator import manifest, plan
from dreamforge_operator.plan import Platform
from dreamforge_operator.runtimes import Model, Runtime, Runtimes
from tests.unit.operator.kit import PLATFORM, Json, renderjob


def child(spec: Json | None = None, platform: Platform = PLATFORM, **meta: Any) -> Json:
    return plan.child_manifest(RenderJob.model_validate(renderjob(spec, **meta)), platform)


def pod_of(job: Json) -> Json:
    found: Json = job["spec"]["template"]["spec"]
    return found


def runner_of(job: Json) -> Json:
    found: Json = pod_of(job)["containers"][0]
    return found


def test_the_same_renderjob_makes_the_same_child():
    assert child() == child()


def test_its_name_carries_the_uid():
    first = child(uid="11111111-aaaa-4000-8000-000000000000")["metadata"]["name"]
    second = child(uid="22222222-aaaa-4000-8000-000000000000")["metadata"]["name"]
    assert (first, second) == ("castle-11111111", "castle-22222222")


def test_it_copies_none_of_its_owners_labels_and_annotations():
    made = child(
        labels={"kustomize.toolkit.fluxcd.io/name": "x", "team": "y"},
        annotations={"argocd.argoproj.io/tracking-id": "z"},
    )
    text = json.dumps([made["metadata"], made["spec"]["template"]["metadata"]])
    assert not any(word in text for word in ("fluxcd", "argoproj", "team"))


def test_inline_input_is_a_file_made_from_an_annotation():
    made = child({"batch": {"count": 3, "shards": 2}, "input": {"prompt": 'a "castle"\n', "steps": 7}})
    text = made["spec"]["template"]["metadata"]["annotations"]["dreamforge.dev/render-spec"]
    spec = RenderSpec.model_validate_json(text)
    assert (spec.params.prompt, spec.params.steps, spec.params.count) == ('a "castle"\n', 7, 3)
    assert (spec.shard.count, spec.model.id) == (2, "sketch")
    (volume,) = [item for item in pod_of(made)["volumes"] if item["name"] == "input"]
    assert volume["downwardAPI"]["items"][0]["path"] == "render-spec.json"
    assert runner_of(made)["command"][-2:] == ["once", "/run/dreamforge/input/render-spec.json"]


def test_the_secret_of_the_api_is_mounted_and_nothing_of_it_is_here():
    spec = {"input": None, "inputSecretRef": {"name": "rj-1", "key": "k.json"}}
    made = child(spec)
    (volume,) = [item for item in pod_of(made)["volumes"] if item["name"] == "input"]
    assert volume["secret"]["secretName"] == "rj-1"
    assert volume["secret"]["items"] == [{"key": "k.json", "path": "render-spec.json"}]
    assert "dreamforge.dev/render-spec" not in made["spec"]["template"]["metadata"]["annotations"]


def test_it_is_restricted():
    made = child()
    pod, runner = pod_of(made), runner_of(made)
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert runner["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert runner["resources"]["limits"]["memory"]
    assert all("sizeLimit" in item["emptyDir"] for item in pod["volumes"] if "emptyDir" in item)
    assert runner["envFrom"] == [{"secretRef": {"name": "runner-env"}}]


def test_exit_codes_decide_as_the_error_list_says():
    ignore_disruption, ignore_stop, final = manifest.failure_policy()["rules"]
    assert ignore_disruption["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert (ignore_stop["action"], ignore_stop["onExitCodes"]["values"]) == ("Ignore", [30])
    codes = {facts.exit_code for facts in FACTS.values() if facts.exit_code and not facts.retryable}
    assert final["action"] == "FailIndex"
    assert codes | {2} == set(final["onExitCodes"]["values"])
    assert {14, 20, 21, 22, 31} & set(final["onExitCodes"]["values"]) == set()


@pytest.mark.parametrize(
    ("gpu", "limit", "claims"),
    [
        ({}, "1", None),
        ({"count": 0}, None, None),
        ({"count": 2}, "2", None),
        ({"resourceClaimTemplateName": "one-gpu"}, None, [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}]),
    ],
)
def test_the_gpu(gpu: Json, limit: str | None, claims: Json | None):
    made = child({"gpu": gpu})
    assert runner_of(made)["resources"]["limits"].get("nvidia.com/gpu") == limit
    assert pod_of(made).get("resourceClaims") == claims
    assert runner_of(made)["resources"].get("claims") == ([{"name": "gpu"}] if claims else None)


def test_a_runtime_is_the_platforms_and_the_models_are_read_only():
    runtime = Runtime(
        image="own:2",
        env={"DF_RUNNER_BACKEND": "sdxl", "DF_SPOOL_DIR": "/elsewhere"},
        models={"persistentVolumeClaim": {"claimName": "models", "readOnly": True}},
        node_selector={"gpu": "l4"},
        runtime_class_name="nvidia",
    )
    offered = Runtimes(
        runtimes={"default": Runtime(), "sdxl": runtime},
        models={"big": Model(kind="sdxl-checkpoint", path="/models/big.safetensors", runtime="sdxl")},
    )
    made = child({"modelRef": {"id": "big"}}, Platform(offered, "runner:1"))
    env = {item["name"]: item.get("value") for item in runner_of(made)["env"]}
    assert runner_of(made)["image"] == "own:2"
    assert (env["DF_RUNNER_BACKEND"], env["DF_SPOOL_DIR"]) == ("sdxl", manifest.SPOOL_PATH)
    mounts = {item["name"]: item for item in runner_of(made)["volumeMounts"]}
    assert (mounts["models"]["mountPath"], mounts["models"]["readOnly"]) == ("/models", True)
    assert (pod_of(made)["nodeSelector"], pod_of(made)["runtimeClassName"]) == ({"gpu": "l4"}, "nvidia")
    assert len({item["name"] for item in runner_of(made)["env"]}) == len(runner_of(made)["env"])


def test_an_installed_model_is_named_by_its_folder_and_the_runtime_says_where_the_root_is():
    runtime = Runtime(
        models={"persistentVolumeClaim": {"claimName": "models"}},
        models_path="/srv/models",
        hashes={"persistentVolumeClaim": {"claimName": "hashes"}},
    )
    offered = Runtimes(runtimes={"default": Runtime(), "sdxl": runtime})
    made = child({"modelRef": {"id": "sdxl-x@1.0"}}, Platform(offered, "runner:1"))
    told = made["spec"]["template"]["metadata"]["annotations"][names.ANNOTATION_RENDER_SPEC]
    model = RenderSpec.model_validate_json(told).model
    assert (model.id, model.folder_path) == ("sdxl-x@1.0", "sdxl-checkpoint/sdxl-x@1.0")
    env = {item["name"]: item.get("value") for item in runner_of(made)["env"]}
    mounts = {item["name"]: item for item in runner_of(made)["volumeMounts"]}
    assert env["DF_MODELS_ROOT"] == mounts["models"]["mountPath"] == "/srv/models"
    assert env["DF_HASH_CACHE_PATH"] == mounts["hashes"]["mountPath"] == manifest.HASHES_PATH
    assert env["DF_SDXL_COMPILE_CACHE_PATH"].startswith(mounts["hashes"]["mountPath"] + "/")
    assert "readOnly" not in mounts["hashes"]
    assert [volume["name"] for volume in pod_of(made)["volumes"]][-2:] == ["models", "hashes"]


def test_no_label_holds_a_model_id():
    """An id may hold an ``@``, which no label may."""
    offered = Runtimes(runtimes={"default": Runtime(models={"emptyDir": {}})})
    made = child({"modelRef": {"id": "sdxl-x@1.0"}}, Platform(offered, "runner:1"))
    labels = [*made["metadata"]["labels"].values(), *made["spec"]["template"]["metadata"]["labels"].values()]
    assert not [value for value in labels if "@" in value]
