"""Why a pod does not run, in the words the cluster was seen to use."""

import pytest

from dreamforge_operator import observed
from dreamforge_operator.diagnosis import diagnose
from tests.unit.operator.kit import START, Json, container, pod, stamp

JOB = observed.job_of({"metadata": {"uid": "job-1"}, "spec": {"parallelism": 1}, "status": {}})


def unscheduled(message: str, reason: str = "Unschedulable") -> Json:
    return {"conditions": [{"type": "PodScheduled", "status": "False", "reason": reason, "message": message}]}


def waits(reason: str, message: str = "") -> Json:
    return {**container(waiting={"reason": reason, "message": message}), "conditions": [SCHEDULED]}


SCHEDULED = {"type": "PodScheduled", "status": "True"}


def event(reason: str, message: str, uid: str) -> observed.Event:
    return observed.event_of(
        {"involvedObject": {"uid": uid}, "reason": reason, "message": message, "lastTimestamp": stamp(START)}
    )


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (unscheduled("0/1 nodes are available: 1 Insufficient nvidia.com/gpu."), "NoGPU"),
        (unscheduled("0/1 nodes are available: 1 Insufficient memory."), "Unschedulable"),
        (unscheduled('persistentvolumeclaim "models" not found'), "VolumeNotMounted"),
        (unscheduled("cannot allocate all claims"), "NoGPU"),
        (unscheduled("", "SchedulingGated"), "Scheduling"),
        (waits("ErrImagePull", "not found"), "ImagePullFailed"),
        (waits("ImagePullBackOff", "Back-off pulling image"), "ImagePullFailed"),
        (waits("InvalidImageName"), "ImagePullFailed"),
        (waits("CreateContainerConfigError", 'secret "runner-env" not found'), "SecretMissing"),
        (waits("CreateContainerConfigError", "couldn't find key x in Secret runners/y"), "SecretMissing"),
        (waits("CreateContainerConfigError", "container has runAsNonRoot and image will run as root"), "ConfigError"),
        (waits("CreateContainerError", "CDI device injection failed: unresolvable CDI devices"), "NoGPU"),
        (waits("RunContainerError", "exec: python: not found"), "ConfigError"),
        (waits("ContainerCreating"), "ContainerCreating"),
        ({}, "Scheduling"),
    ],
)
def test_a_pods_status(status: Json, reason: str):
    cause = diagnose(JOB, [observed.pod_of(pod(**status))], [])
    assert cause.reason == reason
    assert cause.benign is (reason in ("Scheduling", "ContainerCreating"))
    assert cause.message


def test_an_image_is_named():
    cause = diagnose(JOB, [observed.pod_of(pod(**waits("ErrImagePull", "401")))], [])
    assert "runner:1" in cause.message
    assert "(401)" in cause.message


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ('MountVolume.SetUp failed for volume "input" : secret "rj-1" not found', "SecretMissing"),
        ('MountVolume.SetUp failed for volume "input" : references non-existent secret key: k', "SecretMissing"),
        ("Unable to attach or mount volumes", "VolumeNotMounted"),
    ],
)
def test_what_only_a_pods_events_tell(message: str, reason: str):
    waiting = observed.pod_of(pod(**waits("ContainerCreating")))
    assert diagnose(JOB, [waiting], [event("FailedMount", message, waiting.uid)]).reason == reason
    assert diagnose(JOB, [waiting], [event("FailedMount", message, "another")]).reason == "ContainerCreating"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ('pods "x" is forbidden: exceeded quota: none, requested: pods=1', "QuotaExceeded"),
        ('pods "x" is forbidden: violates PodSecurity "restricted:latest"', "AdmissionRefused"),
    ],
)
def test_what_only_the_jobs_events_tell(message: str, reason: str):
    assert diagnose(JOB, [], [event("FailedCreate", message, "job-1")]).reason == reason


def test_an_old_refusal_does_not_count_once_the_pod_is_there():
    waiting = observed.pod_of(pod(**waits("ContainerCreating")))
    assert diagnose(JOB, [waiting], [event("FailedCreate", "exceeded quota", "job-1")]).reason == "ContainerCreating"


def test_nothing_to_tell():
    assert diagnose(None, [], []).benign
