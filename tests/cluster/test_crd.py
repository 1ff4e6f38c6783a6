"""A real API server takes the CRD, and keeps its promises: defaults, refusals, columns, what may change."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from dreamforge.renderjob.resource import RenderJob
from dreamforge.renderjob.status import RenderJobStatus
from tests.cluster.conftest import fresh_namespace
from tests.cluster.control_plane import ControlPlane
from tests.cluster.kubectl import Kubectl, Object, Refused, condition, eventually
from tests.cluster.renderjob_cases import (
    BAD,
    BASE,
    FIXED,
    FULL,
    GOOD,
    JOB_ID,
    Bad,
    Good,
    Spec,
)
from tests.cluster.renderjob_status_cases import BAD_STATUS, FULL_STATUS

ROOT = Path(__file__).resolve().parents[2]
CRD = ROOT / "crds/renderjobs.yaml"
SAMPLES = sorted((ROOT / "manifests/samples").glob("*.yaml"))

DEFAULTS: Spec = {
    "provider": "local-sdxl-epicrealism",
    "batch": {"count": 1, "shards": 1},
    "suspend": False,
    "cancel": False,
    "gpu": {"resourceName": "nvidia.com/gpu", "count": 1},
    "limits": {
        "startDeadlineSeconds": 86400,
        "activeDeadlineSeconds": 86400,
        "itemTimeoutSeconds": 1800,
        "graceSeconds": 5,
    },
    "retry": {"backoffLimit": 2},
    "ttlSecondsAfterFinished": 3600,
    "deletionPolicy": "Retain",
    "managedBy": "dreamforge.dev/operator",
}
INPUT_DEFAULTS: Spec = {
    "width": 1024,
    "height": 1024,
    "steps": 30,
    "guidance": 7,
    "scheduler": "euler",
    "format": "png",
    "embedMetadata": True,
}


def a_condition(kind: str, status: str, reason: str, message: str = "") -> Object:
    when = "2026-01-01T00:00:00Z"
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": when}


def render_job(spec: Spec, **metadata: Any) -> Object:
    return {
        "apiVersion": "dreamforge.dev/v1alpha1",
        "kind": "RenderJob",
        "metadata": {"generateName": "fox-"} | metadata if "name" not in metadata else metadata,
        "spec": spec,
    }


@pytest.fixture(scope="module")
def kubectl(api_server: ControlPlane) -> Kubectl:
    """kubectl that knows the CRD, in a namespace of this module's own."""
    admin = Kubectl(api_server.kubeconfig)
    admin.apply(CRD)
    admin.wait_condition("crd", "renderjobs.dreamforge.dev", "Established")
    eventually("discovery", lambda: "shortNames" in admin("get", "--raw", "/apis/dreamforge.dev/v1alpha1"))
    return fresh_namespace(admin)


@pytest.fixture
def job(kubectl: Kubectl) -> str:
    """The name of a RenderJob of the test's own."""
    return str(kubectl.create(render_job(BASE))["metadata"]["name"])


def test_the_crd_is_taken_without_a_warning_and_is_structural(kubectl: Kubectl):
    done = kubectl.attempt("apply", "-f", CRD)
    assert (done.returncode, done.stderr) == (0, "")
    crd = kubectl.get("crd", "renderjobs.dreamforge.dev")
    for kind in ("Established", "NamesAccepted"):
        assert (condition(crd, kind) or {})["status"] == "True"
    assert condition(crd, "NonStructuralSchema") is None
    assert crd["status"]["storedVersions"] == ["v1alpha1"]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_a_bad_manifest_is_refused_and_told_why(kubectl: Kubectl, bad: Bad):
    with pytest.raises(Refused) as refused:
        kubectl.create(render_job(bad.spec, **bad.metadata))
    for part in bad.says:
        assert part in str(refused.value)


@pytest.mark.parametrize("good", GOOD, ids=lambda good: good.name)
def test_a_good_manifest_is_taken_and_read_by_the_model(kubectl: Kubectl, good: Good):
    made = kubectl.create(render_job(good.spec))
    job = RenderJob.model_validate(made)
    assert job.spec.manifest() == made["spec"]
    assert job.status.observed_generation == -1


def test_what_is_left_out_is_filled_in(kubectl: Kubectl):
    made = kubectl.create(render_job({"input": {"prompt": "a red fox"}}))
    assert made["spec"] == {**DEFAULTS, "input": {"prompt": "a red fox", **INPUT_DEFAULTS}}
    secret = kubectl.create(render_job({"inputSecretRef": {"name": "one"}}))
    assert secret["spec"]["inputSecretRef"] == {"name": "one", "key": "render-spec.json"}


def test_what_nobody_has_seen_does_not_look_finished(kubectl: Kubectl, job: str):
    status = kubectl.get("rj", job)["status"]
    assert status["observedGeneration"] == -1
    assert status["phase"] == "Pending"


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_is_taken_by_a_dry_run_and_for_good(kubectl: Kubectl, path: Path):
    done = kubectl.attempt("apply", "--dry-run=server", "-f", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("created (server dry run)\n")
    kubectl.apply(path, server_side=True)
    (written,) = yaml.safe_load_all(path.read_text(encoding="utf-8"))
    stored = RenderJob.model_validate(kubectl.get("rj", written["metadata"]["name"]))
    assert stored.spec == RenderJob.model_validate(written).spec


def test_explain_tells_what_a_field_means_and_its_bounds(kubectl: Kubectl):
    told = " ".join(kubectl("explain", "renderjobs.spec.input.steps").split())
    assert "FIELD: steps <integer> DESCRIPTION: Denoising steps. 1 to 150; default 30." in told
    assert "ENUM: euler euler_a dpmpp_2m" in " ".join(kubectl("explain", "rj.spec.input.scheduler").split())


def test_get_shows_where_each_job_is(kubectl: Kubectl, job: str):
    status = {
        "phase": "Rendering",
        "attempt": 2,
        "progress": {"percent": 40, "itemsTotal": 1, "itemsDone": 0, "etaSeconds": 61},
        "gpu": {"product": "NVIDIA H200", "vramPeakMiB": 9000},
        "conditions": [a_condition("Ready", "False", "Rendering", "1 pod renders")],
    }
    kubectl.patch("rj", job, {"status": status}, subresource="status")
    head, row = (re.split(r"\s{2,}", line.strip()) for line in kubectl("get", "rj", job).splitlines())
    assert head == ["NAME", "PHASE", "PROGRESS", "DONE", "ITEMS", "MODEL", "GPU", "ATTEMPT", "AGE"]
    assert row[:-1] == [job, "Rendering", "40", "0", "1", "1", "2"]
    wide = kubectl("get", "rj", job, "-o", "wide")
    for text in ("REASON", "1 pod renders", "61", "NVIDIA H200", "9000"):
        assert text in wide


def test_jobs_can_be_selected_by_phase_and_provider(kubectl: Kubectl, job: str):
    kubectl.patch("rj", job, {"status": {"phase": "Canceling"}}, subresource="status")
    sketch = kubectl.create(render_job({**BASE, "provider": "local-sketch", "modelRef": {"id": "sketchy@1.0"}}))
    for selector, name in (
        ("status.phase=Canceling", job),
        ("spec.provider=local-sketch,spec.modelRef.id=sketchy@1.0", sketch["metadata"]["name"]),
    ):
        assert kubectl("get", "rj", f"--field-selector={selector}", "-o", "name").split() == [
            f"renderjob.dreamforge.dev/{name}"
        ]


def test_people_can_wait_for_a_condition(kubectl: Kubectl, job: str):
    done = {"conditions": [a_condition("Complete", "True", "Succeeded", "every image is stored")]}
    kubectl.patch("rj", job, {"status": done}, subresource="status")
    # What was observed of an older generation says nothing about this one.
    with pytest.raises(Refused, match="condition not met"):
        kubectl.wait_condition("rj", job, "Complete", timeout=0)
    kubectl.patch("rj", job, {"status": {"observedGeneration": 1}}, subresource="status")
    kubectl.wait_condition("rj", job, "Complete", timeout=10)


# Who may write what, and when.


def test_spec_and_status_are_written_apart(kubectl: Kubectl, job: str):
    kubectl.patch("rj", job, {"spec": {"suspend": True}, "status": {"phase": "Failed"}})
    kubectl.patch("rj", job, {"spec": {"suspend": False}, "status": {"phase": "Queued"}}, subresource="status")
    stored = kubectl.get("rj", job)
    assert (stored["spec"]["suspend"], stored["status"]["phase"]) == (True, "Queued")
    # The generation counts what was asked for, not what was observed.
    assert stored["metadata"]["generation"] == 2


@pytest.mark.parametrize("bad", BAD_STATUS, ids=lambda bad: bad.name)
def test_a_status_outside_the_closed_lists_is_refused(kubectl: Kubectl, job: str, bad: Bad):
    with pytest.raises(Refused) as refused:
        kubectl.patch("rj", job, {"status": bad.spec}, subresource="status")
    for part in bad.says:
        assert part in str(refused.value)


def test_the_fullest_status_is_stored_as_the_model_writes_it(kubectl: Kubectl, job: str):
    status = RenderJobStatus.model_validate(FULL_STATUS)
    kubectl.patch("rj", job, {"status": status.manifest()}, subresource="status")
    stored = kubectl.get("rj", job)
    assert RenderJob.model_validate(stored).status == status
    assert stored["status"] == FULL_STATUS


@pytest.mark.parametrize("change", FIXED, ids=lambda change: change.name)
def test_what_is_asked_for_can_not_be_changed(kubectl: Kubectl, change: Bad):
    name = kubectl.create(render_job(FULL))["metadata"]["name"]
    with pytest.raises(Refused) as refused:
        kubectl.patch("rj", name, {"spec": change.spec})
    for part in change.says:
        assert part in str(refused.value)
    assert kubectl.get("rj", name)["metadata"]["generation"] == 1


def test_a_field_that_was_absent_can_not_be_added_later(kubectl: Kubectl, job: str):
    for field, value in (("jobId", JOB_ID), ("modelRef", {"id": "sketch"}), ("runtimeRef", {"name": "sdxl"})):
        with pytest.raises(Refused, match=f"{field} can't be changed once the RenderJob exists"):
            kubectl.patch("rj", job, {"spec": {field: value}})


def test_what_is_steered_may_change_there_and_back(kubectl: Kubectl):
    name = kubectl.create(render_job(FULL))["metadata"]["name"]
    for change in (
        {"suspend": True},
        {"suspend": False},
        {"cancel": True},
        # Flux takes it back; that the cancel stands is the status's matter.
        {"cancel": False},
        {"ttlSecondsAfterFinished": 0},
        {"deletionPolicy": "DeleteSelf"},
        {"queue": {"priorityClassName": "urgent"}},
    ):
        kubectl.patch("rj", name, {"spec": change})
    spec = RenderJob.model_validate(kubectl.get("rj", name)).spec
    assert spec.queue is not None
    assert (spec.queue.name, spec.queue.priority_class_name) == ("gpu", "urgent")
    assert (spec.cancel, spec.ttl_seconds_after_finished, spec.deletion_policy) == (False, 0, "DeleteSelf")


def test_applying_the_same_manifest_again_changes_nothing(kubectl: Kubectl):
    sample = ROOT / "manifests/samples/queued.yaml"
    kubectl.apply(sample)
    before = kubectl.get("rj", "queued")["metadata"]
    kubectl.apply(sample)
    kubectl.apply(sample, server_side=True)
    assert kubectl.get("rj", "queued")["metadata"]["generation"] == before["generation"]
