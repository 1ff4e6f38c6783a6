"""Which class a failed child has."""

import pytest

from dreamforge_operator import failures, observed, verdict
from dreamforge_operator.observed import Condition
from tests.unit.operator.kit import Json, ended, pod, true
from tests.unit.operator.kit import verdict as said

FAILED = Condition("True", "FailedIndexes")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (ended(13, said(**{"class": "gpu_oom", "exit_code": 13})), "gpu_oom"),
        (ended(20), "storage_error"),
        (ended(137, reason="OOMKilled"), "host_oom"),
        (ended(137), "runner_lost"),
        (ended(1), "internal"),
        (ended(99), "runner_lost"),
        (ended(21, "Traceback: not JSON"), "provider_error"),
        (ended(13, said(**{"class": "queue_full"})), "runner_lost"),
        ({"phase": "Failed", "reason": "UnexpectedAdmissionError"}, "runner_lost"),
        (
            {"phase": "Failed", "reason": "Evicted", "message": "Pod ephemeral local storage usage exceeds"},
            "disk_full",
        ),
    ],
)
def test_of_a_pod(status: Json, code: str):
    assert failures.of_job(FAILED, [observed.pod_of(pod(**status))]).code == code


def test_the_last_attempt_decides_and_disrupted_or_stopped_ones_do_not():
    pods = [
        observed.pod_of(pod(number=0, **ended(20))),
        observed.pod_of(pod(number=2, **ended(22))),
        observed.pod_of(pod(number=3, **ended(30))),
        observed.pod_of(pod(number=4, **{**ended(137), "conditions": [true("DisruptionTarget")]})),
    ]
    assert failures.of_job(FAILED, pods).code == "gpu_fault"
    assert failures.of_job(FAILED, []).code == "runner_lost"
    assert failures.of_job(Condition("True", "DeadlineExceeded"), pods).code == "job_timeout"


@pytest.mark.parametrize(
    "message",
    [None, "", "no", "[]", "{}", '{"v": 2, "exit_code": 0}', '{"v":1,"exit_code":"x"}', "[" * 5000, '"\\ud800"'],
)
def test_a_message_that_is_no_verdict(message: str | None):
    assert verdict.parse(message) is None


def test_what_a_newer_runner_adds_is_ignored():
    words = verdict.parse('{"v":1,"class":"gpu_oom","exit_code":13,"new":1,"vram_mib":{"peak":7.5}}')
    assert words is not None
    assert (words.error, words.vram_mib and words.vram_mib.peak) == ("gpu_oom", 7.5)
