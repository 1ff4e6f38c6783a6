"""The executor of a cluster on a real API server: the suite every executor passes, and what only a cluster does.

Nothing acts on the objects: the tests play the operator by writing what it would write to a RenderJob's status.
"""

import base64
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from dreamforge.errors import ConfigurationError
from dreamforge.models import DEFAULT_PROVIDER
from dreamforge.renderjob import names
from dreamforge.renderjob.conditions import ConditionStatus, ConditionType, Phase
from dreamforge.renderjob.resource import RenderJob
from dreamforge.spec import Limits, ModelRef, RenderSpec, Shard
from dreamforge_api.execution.base import Liveness, Refused, TryLater, Unreachable
from dreamforge_api.execution.kubernetes import Connection, KubernetesExecutor, liveness_of
from dreamforge_api.worker.ingest import new_id
from tests.cluster.conftest import fresh_namespace
from tests.cluster.control_plane import ControlPlane
from tests.cluster.kubectl import Kubectl, Object, eventually
from tests.contract.executor_kit import *  # noqa: F403 - the suite
from tests.contract.executor_kit import INSTALLED, Stage, spec

CRD = Path(__file__).resolve().parents[2] / "crds/renderjobs.yaml"
PROMPT = "a lighthouse"
SDXL = ModelRef(id="sdxl-x", name="X", kind="sdxl-checkpoint", version="1")


class Operator:
    """Writes what an operator would write."""

    def __init__(self, kubectl: Kubectl) -> None:
        self._kubectl = kubectl

    def say(self, name: str, phase: Phase, condition: ConditionType) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        told = {"type": condition, "status": ConditionStatus.TRUE, "lastTransitionTime": now, "reason": phase}
        status = {"phase": phase, "observedGeneration": 1, "conditions": [told]}
        self._kubectl.patch("renderjob", name, {"status": status}, subresource="status")

    def start(self, job_id: UUID) -> None:
        self.say(names.resource_name(job_id), Phase.RENDERING, ConditionType.RECONCILING)

    def vanish(self, job_id: UUID) -> None:
        self.say(names.resource_name(job_id), Phase.FAILED, ConditionType.FAILED)

    def waiting(self) -> int:
        """How many wait, once those that are canceled have been ended."""
        found = self._kubectl.list("renderjobs")
        canceled = [item for item in found if item["spec"]["cancel"]]
        for item in canceled:
            self.say(item["metadata"]["name"], Phase.CANCELED, ConditionType.CANCELED)
        return sum(liveness_of(item) is Liveness.WAITING for item in found if item not in canceled)


@pytest.fixture(scope="module")
def with_crd(api_server: ControlPlane) -> ControlPlane:
    kubectl = Kubectl(api_server.kubeconfig)
    kubectl.apply(CRD)
    kubectl.wait_condition("crd", names.CRD_NAME, "Established")
    return api_server


@pytest.fixture
def kubectl(with_crd: ControlPlane) -> Kubectl:
    return fresh_namespace(Kubectl(with_crd.kubeconfig))


@pytest.fixture
def executor(kubectl: Kubectl) -> Iterator[KubernetesExecutor]:
    connection = Connection.open(kubectl.kubeconfig)
    yield KubernetesExecutor(connection, kubectl.namespace)
    connection.close()


@pytest.fixture
def stage(executor: KubernetesExecutor, kubectl: Kubectl) -> Stage:
    operator = Operator(kubectl)
    return Stage(executor, operator.start, operator.vanish, operator.waiting, partial(told, kubectl))


def made(kubectl: Kubectl, job: RenderSpec) -> Object:
    return kubectl.get("renderjob", names.resource_name(job.job_id))


def told(kubectl: Kubectl, job_id: UUID) -> RenderSpec:
    """What the pod of the job would be given."""
    asked = RenderJob.model_validate(kubectl.get("renderjob", names.resource_name(job_id))).spec
    assert asked.input_secret_ref is not None
    kept = kubectl.get("secret", asked.input_secret_ref.name)["data"][asked.input_secret_ref.key]
    return RenderSpec.model_validate_json(base64.b64decode(kept))


def test_the_order_names_the_secret_and_holds_no_prompt(executor: KubernetesExecutor, kubectl: Kubectl) -> None:
    job = spec()
    assert executor.submit(job) == f"{kubectl.namespace}/rj-{job.job_id}"
    order = made(kubectl, job)
    assert PROMPT not in str(order)
    asked = RenderJob.model_validate(order).spec
    assert (asked.job_id, asked.batch.count, asked.gpu.count) == (job.job_id, 1, 0)
    assert told(kubectl, job.job_id) == job


def test_an_installed_model_is_named_in_the_order(executor: KubernetesExecutor, kubectl: Kubectl) -> None:
    job = spec().model_copy(update={"model": INSTALLED})
    executor.submit(job)
    assert made(kubectl, job)["spec"]["modelRef"] == {"id": INSTALLED.id}


def test_a_model_that_needs_a_gpu_asks_for_one_within_the_jobs_deadline(
    executor: KubernetesExecutor, kubectl: Kubectl
) -> None:
    job = spec().model_copy(update={"model": SDXL})
    limits = Limits(deadline_at=job.created_at + timedelta(seconds=90), item_timeout_seconds=3600)
    job = job.model_copy(update={"limits": limits})
    executor.submit(job)
    asked = RenderJob.model_validate(made(kubectl, job)).spec
    assert (asked.gpu.count, asked.provider) == (1, DEFAULT_PROVIDER)
    assert (asked.limits.start_deadline_seconds, asked.limits.active_deadline_seconds) == (90, 90)
    assert asked.limits.item_timeout_seconds == 90


def test_seeds_and_settings_that_changed_make_no_other_job(executor: KubernetesExecutor) -> None:
    job = spec()
    ref = executor.submit(job)
    later = job.model_copy(update={"seeds": {0: 7}, "limits": Limits(grace_seconds=9), "correlation_id": "other"})
    assert executor.submit(later) == ref


def test_another_job_under_the_same_id_is_refused_out_loud(executor: KubernetesExecutor) -> None:
    job = spec()
    executor.submit(job)
    other = job.model_copy(update={"params": job.params.model_copy(update={"steps": 31})})
    with pytest.raises(Refused, match="stands for another job"):
        executor.submit(other)


def test_a_secret_without_its_order_is_completed(executor: KubernetesExecutor, kubectl: Kubectl) -> None:
    """The process died between the two."""
    job = spec()
    executor.submit(job)
    kubectl.delete("renderjob", names.resource_name(job.job_id), wait=True)
    assert executor.liveness(job.job_id, None) is Liveness.ABSENT
    executor.submit(job)
    assert executor.liveness(job.job_id, None) is Liveness.WAITING


def test_the_secret_stays_while_a_pod_may_need_it(executor: KubernetesExecutor, kubectl: Kubectl) -> None:
    job, operator = spec(), Operator(kubectl)
    ref, name = executor.submit(job), names.resource_name(job.job_id)
    operator.start(job.job_id)
    assert not executor.release(job.job_id, ref)
    assert kubectl.find("secret", name)
    operator.vanish(job.job_id)
    assert executor.release(job.job_id, ref)
    assert kubectl.find("secret", name) is None
    assert kubectl.find("renderjob", name)


def test_a_job_that_a_person_applied_is_found_and_canceled_by_its_reference(
    executor: KubernetesExecutor, kubectl: Kubectl
) -> None:
    body: dict[str, Any] = {"apiVersion": names.API_VERSION, "kind": names.KIND}
    kubectl.apply({**body, "metadata": {"name": "mine"}, "spec": {"input": {"prompt": PROMPT}}})
    ref, job_id = f"{kubectl.namespace}/mine", new_id()
    assert executor.liveness(job_id, ref) is Liveness.WAITING
    executor.cancel(job_id, ref)
    assert kubectl.get("renderjob", "mine")["spec"]["cancel"] is True
    assert not executor.release(job_id, ref)


def test_what_the_api_server_refuses_is_told_in_its_words_without_the_prompt(executor: KubernetesExecutor) -> None:
    job = spec().model_copy(update={"shard": Shard(index=0, count=5)})
    with pytest.raises(Refused, match="shards") as caught:
        executor.submit(job)
    assert PROMPT not in str(caught.value)


def test_what_a_refused_order_left_is_released_and_what_only_has_its_name_stays(
    executor: KubernetesExecutor, kubectl: Kubectl
) -> None:
    refused = spec().model_copy(update={"shard": Shard(index=0, count=5)})
    name = names.resource_name(refused.job_id)
    with pytest.raises(Refused, match="shards"):
        executor.submit(refused)
    assert kubectl.find("secret", name), "it is made first"
    assert executor.release(refused.job_id, None)
    assert kubectl.find("secret", name) is None

    other = new_id()
    name = names.resource_name(other)
    body: dict[str, Any] = {"apiVersion": names.API_VERSION, "kind": names.KIND}
    kubectl.apply({**body, "metadata": {"name": name}, "spec": {"input": {"prompt": PROMPT}}})
    kubectl.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}})
    executor.cancel(other, None)
    assert executor.release(other, None)
    assert kubectl.get("renderjob", name)["spec"]["cancel"] is False
    assert kubectl.find("secret", name)


def test_a_job_whose_answer_was_lost_is_canceled_without_a_reference(
    executor: KubernetesExecutor, kubectl: Kubectl
) -> None:
    job, operator = spec(), Operator(kubectl)
    executor.submit(job)
    executor.cancel(job.job_id, None)
    assert made(kubectl, job)["spec"]["cancel"] is True
    assert not executor.release(job.job_id, None)
    assert operator.waiting() == 0
    assert executor.release(job.job_id, None)
    assert kubectl.find("secret", names.resource_name(job.job_id)) is None


def test_a_queue_that_no_order_may_name_refuses_the_job_and_leaves_nothing(kubectl: Kubectl) -> None:
    connection = Connection.open(kubectl.kubeconfig)
    with pytest.raises(Refused, match=r"queue\.name") as caught:
        KubernetesExecutor(connection, kubectl.namespace, queue="Team A").submit(spec())
    connection.close()
    assert "Team A" not in str(caught.value)
    assert kubectl.list("secrets") == []


def test_a_full_namespace_and_a_missing_one_are_try_later(kubectl: Kubectl) -> None:
    connection = Connection.open(kubectl.kubeconfig)
    with pytest.raises(TryLater, match=r"does not know.*nowhere"):
        KubernetesExecutor(connection, "nowhere").submit(spec())
    hard = {"count/secrets": "0"}
    kubectl.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": hard}})
    executor = KubernetesExecutor(connection, kubectl.namespace)

    def refused_for_now(words: str) -> bool:
        try:
            executor.submit(spec())
        except TryLater as error:
            return words in str(error)
        return False

    for used, words in (({}, "status unknown for quota"), (hard, "exceeded quota")):
        kubectl.patch("resourcequota", "none", {"status": {"hard": hard, "used": used}}, subresource="status")
        eventually("the quota is known to the API server", partial(refused_for_now, words))
    connection.close()


def test_a_forbidden_cluster_refuses_a_submit_and_leaves_the_rest_for_later(kubectl: Kubectl, tmp_path: Path) -> None:
    nobody = tmp_path / "kubeconfig"
    nobody.write_text(re.sub('"token": "[^"]*"', '"username": "nobody"', kubectl.kubeconfig.read_text()))
    connection = Connection.open(nobody)
    executor = KubernetesExecutor(connection, kubectl.namespace)
    with pytest.raises(Refused, match="forbidden"):
        executor.submit(spec())
    for call in (executor.cancel, executor.liveness):
        with pytest.raises(TryLater, match="forbidden"):
            call(new_id(), None)
    connection.close()


def test_a_cluster_that_is_away_is_try_later(tmp_path: Path, kubectl: Kubectl) -> None:
    away = tmp_path / "kubeconfig"
    text = kubectl.kubeconfig.read_text()
    start = text.index("https://")
    away.write_text(text.replace(text[start : text.index('"', start)], "https://127.0.0.1:1"))
    executor = KubernetesExecutor(Connection.open(away), "x")
    with pytest.raises(Unreachable, match="can't be reached"):
        executor.submit(spec())


def test_a_kubeconfig_that_is_none_stops_the_process_at_start(tmp_path: Path) -> None:
    for path in (None, tmp_path / "missing"):
        with pytest.raises(ConfigurationError, match="KUBECONFIG"):
            Connection.open(path)
