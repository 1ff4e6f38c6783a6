"""From a RenderJob to its child Job, as data. Pure: the same RenderJob and runtime make the same manifest.

The Job is *Indexed*, one index per shard; the Job controller owns retries. What differs between attempts (pod UID,
pod name, shard) reaches the runner by the downward API, because the template is one for all of them.
"""

import json
from collections.abc import Sequence
from typing import Any

from dreamforge.errors import FACTS, ErrorCode
from dreamforge.jobs import StepName
from dreamforge.renderjob import names
from dreamforge.renderjob.resource import RenderJob
from dreamforge.spec import Limits, ModelRef, RenderSpec, Shard
from dreamforge_operator.observed import RUNNER_CONTAINER
from dreamforge_operator.runtimes import Runtime

Json = dict[str, Any]

STEP = StepName.GENERATE
INPUT_PATH = "/run/dreamforge/input"
SPOOL_PATH = "/var/spool/dreamforge"
HASHES_PATH = "/var/cache/dreamforge"
KERNELS_PATH = f"{HASHES_PATH}/compiled"
SCRATCH_PATH = "/tmp"  # noqa: S108 - inside the pod, an emptyDir of its own
TERMINATION_PATH = "/dev/termination-log"
USER_ID = 65532
STOPPED_EXIT_CODE = FACTS[ErrorCode.STOPPED].exit_code
#: Exit status of a runner whose settings are wrong.
WRONG_SETTINGS = 2


def job(rj: RenderJob, runtime: Runtime, image: str, env_secret: str | None, model: ModelRef | None) -> Json:
    """The child Job of ``rj``. ``model`` is needed for inline input only."""
    labels = _labels(rj)
    queue = rj.spec.queue
    if queue is not None:
        labels[names.KUEUE_QUEUE_LABEL] = queue.name
        if queue.priority_class_name:
            labels[names.KUEUE_PRIORITY_LABEL] = queue.priority_class_name
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": rj.child_name,
            "namespace": rj.metadata.namespace,
            "labels": labels,
            "ownerReferences": [_owner(rj)],
        },
        "spec": {
            "completionMode": "Indexed",
            "completions": rj.spec.batch.shards,
            "parallelism": rj.spec.batch.shards,
            "backoffLimitPerIndex": rj.spec.retry.backoff_limit,
            "maxFailedIndexes": 0,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": failure_policy(),
            "activeDeadlineSeconds": rj.spec.limits.active_deadline_seconds,
            # Kueue's webhook would set it; without the webhook a pod would run outside of quota.
            "suspend": queue is not None,
            "template": {
                "metadata": {"labels": _labels(rj), "annotations": _annotations(rj, model)},
                "spec": pod(rj, runtime, image, env_secret),
            },
        },
    }


def failure_policy() -> Json:
    """What a failed pod counts: nothing when the cluster or a request ended it, everything when no retry can help."""
    final = sorted({facts.exit_code for facts in FACTS.values() if facts.exit_code and not facts.retryable})
    return {
        "rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "Ignore", "onExitCodes": _exit_codes([STOPPED_EXIT_CODE])},
            {"action": "FailIndex", "onExitCodes": _exit_codes(sorted({*final, WRONG_SETTINGS}))},
        ]
    }


def pod(rj: RenderJob, runtime: Runtime, image: str, env_secret: str | None) -> Json:
    """The pod spec, as the ``restricted`` Pod Security profile wants it."""
    spec = rj.spec
    optional = {
        "serviceAccountName": runtime.service_account_name,
        "priorityClassName": runtime.priority_class_name,
        "runtimeClassName": spec.gpu.runtime_class_name or runtime.runtime_class_name,
        "nodeSelector": runtime.node_selector,
        "tolerations": list(runtime.tolerations),
        "imagePullSecrets": [{"name": name} for name in runtime.image_pull_secrets],
        "resourceClaims": _claims(rj),
    }
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": spec.limits.grace_seconds,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(rj, runtime, image, env_secret)],
        "volumes": _volumes(rj, runtime),
        **{name: value for name, value in optional.items() if value},
    }


def render_spec(rj: RenderJob, model: ModelRef) -> RenderSpec:
    """What the runner is told of inline input. Raises ``ValueError`` for input that breaks a rule."""
    params, created = rj.spec.params(), rj.metadata.creation_timestamp
    if params is None or created is None:
        raise ValueError("only an object with inline input that an API server stored has a render spec")
    return RenderSpec(
        job_id=rj.job_id,
        step=STEP,
        created_at=created,
        correlation_id=correlation_id(rj),
        params=params,
        model=model,
        limits=Limits(
            item_timeout_seconds=rj.spec.limits.item_timeout_seconds, grace_seconds=rj.spec.limits.grace_seconds
        ),
        shard=Shard(index=0, count=rj.spec.batch.shards),
    )


def correlation_id(rj: RenderJob) -> str:
    """Ties every log line about the job together: given by the API, else the object's uid."""
    return rj.metadata.annotations.get(names.ANNOTATION_CORRELATION_ID, rj.metadata.uid)[:128]


def _labels(rj: RenderJob) -> dict[str, str]:
    """Ours alone: a GitOps tool takes a child that carries its owner's labels for its own, and may prune it."""
    return {
        names.LABEL_MANAGED_BY: names.OPERATOR_MANAGER,
        names.LABEL_COMPONENT: names.COMPONENT_RUNNER,
        names.LABEL_RENDERJOB: rj.metadata.name,
        names.LABEL_RENDERJOB_UID: rj.metadata.uid,
        names.LABEL_JOB_ID: str(rj.job_id),
        names.LABEL_STEP: STEP.value,
    }


def _annotations(rj: RenderJob, model: ModelRef | None) -> dict[str, str]:
    told = {names.ANNOTATION_CORRELATION_ID: correlation_id(rj)}
    if rj.spec.input_secret_ref is None:
        if model is None:
            raise ValueError("inline input needs a model")
        spec = render_spec(rj, model).model_dump(mode="json", exclude_none=True)
        told[names.ANNOTATION_RENDER_SPEC] = json.dumps(spec, ensure_ascii=False, separators=(",", ":"))
    return told


def _owner(rj: RenderJob) -> Json:
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "name": rj.metadata.name,
        "uid": rj.metadata.uid,
        "controller": True,
        # True would need a right on finalizers where OwnerReferencesPermissionEnforcement is on.
        "blockOwnerDeletion": False,
    }


def _container(rj: RenderJob, runtime: Runtime, image: str, env_secret: str | None) -> Json:
    secret = {"envFrom": [{"secretRef": {"name": env_secret}}]} if env_secret else {}
    pull = {"imagePullPolicy": runtime.image_pull_policy} if runtime.image_pull_policy else {}
    return {
        "name": RUNNER_CONTAINER,
        "image": image,
        "command": ["python", "-m", "dreamforge_runner", "once", f"{INPUT_PATH}/{names.INPUT_KEY}"],
        "env": _env(rj, runtime),
        "resources": _resources(rj, runtime),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePath": TERMINATION_PATH,
        "terminationMessagePolicy": "File",
        "volumeMounts": _mounts(runtime),
        **secret,
        **pull,
    }


def _env(rj: RenderJob, runtime: Runtime) -> list[Json]:
    """Ours come last: a runtime may add, never replace. The Job controller adds the shard's index."""
    fixed = {
        "DF_TERMINATION_LOG": TERMINATION_PATH,
        "DF_SPOOL_DIR": SPOOL_PATH,
        "HOME": SCRATCH_PATH,
        "TMPDIR": SCRATCH_PATH,
    }
    drawn = {
        "DF_ATTEMPT_ID": "metadata.uid",
        "DF_RUNNER_NAME": "metadata.name",
    }
    models = {"DF_MODELS_ROOT": runtime.models_path} if runtime.models else {}
    # Without a volume that outlives the pod nothing is kept: the default is a folder of the read-only root.
    hashes = {"DF_HASH_CACHE_PATH": HASHES_PATH, "DF_SDXL_COMPILE_CACHE_PATH": KERNELS_PATH} if runtime.hashes else {}
    values = {**models, **hashes, **runtime.env, **fixed}
    return [
        *({"name": name, "value": value} for name, value in values.items() if name not in drawn),
        *({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in drawn.items()),
    ]


def _resources(rj: RenderJob, runtime: Runtime) -> Json:
    gpu = rj.spec.gpu
    requests, limits = dict(runtime.resources.requests), dict(runtime.resources.limits)
    if gpu.resource_claim_template_name:
        return {"requests": requests, "limits": limits, "claims": [{"name": "gpu"}]}
    if gpu.count:
        requests[gpu.resource_name] = limits[gpu.resource_name] = str(gpu.count)
    return {"requests": requests, "limits": limits}


def _claims(rj: RenderJob) -> list[Json]:
    template = rj.spec.gpu.resource_claim_template_name
    return [{"name": "gpu", "resourceClaimTemplateName": template}] if template else []


def _volumes(rj: RenderJob, runtime: Runtime) -> list[Json]:
    models = [{"name": "models", **runtime.models}] if runtime.models else []
    hashes = [{"name": "hashes", **runtime.hashes}] if runtime.hashes else []
    return [
        {"name": "input", **_input_source(rj)},
        {"name": "spool", "emptyDir": {"sizeLimit": runtime.spool_size}},
        {"name": "scratch", "emptyDir": {"sizeLimit": runtime.scratch_size}},
        *models,
        *hashes,
    ]


def _input_source(rj: RenderJob) -> Json:
    """A Secret, or the pod's own annotation as a file: the operator may not touch Secrets."""
    ref = rj.spec.input_secret_ref
    if ref is not None:
        items = [{"key": ref.key, "path": names.INPUT_KEY}]
        return {"secret": {"secretName": ref.name, "items": items, "defaultMode": 0o440}}
    field = {"fieldPath": f"metadata.annotations['{names.ANNOTATION_RENDER_SPEC}']"}
    return {"downwardAPI": {"items": [{"path": names.INPUT_KEY, "fieldRef": field}], "defaultMode": 0o440}}


def _mounts(runtime: Runtime) -> list[Json]:
    models = [{"name": "models", "mountPath": runtime.models_path, "readOnly": True}] if runtime.models else []
    hashes = [{"name": "hashes", "mountPath": HASHES_PATH}] if runtime.hashes else []
    return [
        {"name": "input", "mountPath": INPUT_PATH, "readOnly": True},
        {"name": "spool", "mountPath": SPOOL_PATH},
        {"name": "scratch", "mountPath": SCRATCH_PATH},
        *models,
        *hashes,
    ]


def _exit_codes(codes: Sequence[int | None]) -> Json:
    return {"containerName": RUNNER_CONTAINER, "operator": "In", "values": codes}
