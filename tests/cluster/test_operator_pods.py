"""From ``kubectl apply`` to a runner that renders, in real pods of the runner's image; and why a pod can't start."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.kubectl import Kubectl, Object, condition, eventually
from tests.cluster.operators import Operator, Played, in_pods, install_crd, render_job
from tests.models_on_disk import install

SMALL = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}}


@pytest.fixture
def operator(namespace: Kubectl, runner_image: str, tmp_path: Path) -> Iterator[Operator]:
    install_crd(namespace)
    other = {"image": "127.0.0.1:1/nothing:1", "resources": SMALL}
    models = {"resources": SMALL, "models": {"configMap": {"name": "models", "items": items_of(namespace, tmp_path)}}}
    runtimes: dict[str, Object] = {"default": {"resources": SMALL}, "elsewhere": other, "with-models": models}
    operator = in_pods(namespace, runner_image, tmp_path, runtimes)
    operator.start()
    operator.wait_ready()
    yield operator
    operator.stop()


def items_of(kubectl: Kubectl, folder: Path) -> list[Object]:
    """A models root as a ConfigMap, which any pod may mount: an installed model, and the same in a wrong place."""
    model = install(folder / "root", "sdxl-x", "1.0")
    files = {
        f"{place}/{path.relative_to(folder / 'root' / model.folder).as_posix()}": path
        for place in (model.folder, "sdxl-checkpoint/sdxl-wrong@1.0")
        for path in (folder / "root" / model.folder).rglob("*")
        if path.is_file()
    }
    data = {name.replace("/", "_").replace("@", "_"): path.read_text() for name, path in files.items()}
    kubectl.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "models"}, "data": data})
    return [{"key": name.replace("/", "_").replace("@", "_"), "path": name} for name in files]


def apply(kubectl: Kubectl, name: str, **spec: object) -> Played:
    kubectl.create(render_job(name, **spec))
    return Played(kubectl, name)


def test_pods_render_and_say_so(namespace: Kubectl, operator: Operator):
    small = {"prompt": "a lighthouse", "width": 256, "height": 256, "steps": 4}
    one = apply(namespace, "one", input=small, batch={"count": 2})
    shards = apply(namespace, "shards", input=small, batch={"count": 3, "shards": 2})
    gpu = apply(namespace, "gpu", input=small, gpu={"count": 1})
    for job, total in ((one, 2), (shards, 3), (gpu, 1)):
        namespace.wait_condition("renderjob", job.name, "Complete", timeout=180)
        status = job.status
        assert (status["phase"], status["attempt"]) == ("Succeeded", 1)
        assert status["progress"] == {"percent": 100, "itemsDone": total, "itemsTotal": total}
    pod = one.pods()[0]
    said = json.loads(pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"])
    assert (said["v"], said["exit_code"], said["items_done"]) == (1, 0, 2)
    assert (condition(one.body, "GPUClean") or {})["reason"] in ("NotMeasured", "Verified")


def test_an_installed_model_is_found_by_its_id_on_the_models_volume(namespace: Kubectl, operator: Operator):
    """No list names it. The image has no SDXL, so what is found ends at that; what is not, before."""
    small = {"prompt": "a lighthouse", "width": 256, "height": 256, "steps": 4}
    ends = {"sdxl-x@1.0": "provider_error", "sdxl-y@1.0": "model_missing", "sdxl-wrong@1.0": "model_invalid"}
    once: dict[str, object] = {"input": small, "gpu": {"count": 0}, "retry": {"backoffLimit": 0}}
    jobs = {
        model: apply(namespace, f"model-{number}", modelRef={"id": model}, **once)
        for number, model in enumerate(ends)
    }
    for job in jobs.values():
        namespace.wait_condition("renderjob", job.name, "Failed", timeout=180)
    assert {model: job.status["failure"]["class"] for model, job in jobs.items()} == ends
    (pod,) = jobs["sdxl-x@1.0"].pods()
    (runner,) = pod["spec"]["containers"]
    assert {"name": "DF_MODELS_ROOT", "value": "/models"} in runner["env"]
    assert {"name": "models", "mountPath": "/models", "readOnly": True} in [
        {key: mount[key] for key in ("name", "mountPath", "readOnly") if key in mount}
        for mount in runner["volumeMounts"]
    ]


def test_a_cancel_ends_the_pod_within_its_grace(namespace: Kubectl, operator: Operator):
    job = apply(namespace, "long", input={"prompt": "x", "steps": 150}, batch={"count": 100})
    job.wait_phase("Rendering", timeout=120)
    job.edit(cancel=True)
    job.wait_phase("Canceled")
    assert all(pod["status"]["phase"] in ("Succeeded", "Failed") for pod in job.pods())
    eventually("its pod is gone", lambda: not job.pods())


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"gpu": {"count": 7}}, "NoGPU"),
        ({"runtimeRef": {"name": "elsewhere"}}, "ImagePullFailed"),
        ({"input": None, "inputSecretRef": {"name": "not-there"}}, "SecretMissing"),
    ],
    ids=["gpu", "image", "secret"],
)
def test_what_holds_a_pod_up_is_told_within_half_a_minute(
    namespace: Kubectl, operator: Operator, spec: dict[str, object], reason: str
):
    body = render_job("stuck", **spec)
    body["spec"] = {key: value for key, value in body["spec"].items() if value is not None}
    namespace.create(body)
    job = Played(namespace, "stuck")
    eventually(f"{reason} is told", lambda: job.reason("PodReady") == reason, timeout=30)
    assert job.status["phase"] == "Starting"
