"""Statuses as an operator writes them: the fullest one, and what an API server must refuse."""

from typing import Any

from tests.cluster.renderjob_cases import JOB_ID, Bad, Spec, bad

_WHEN = "2026-01-01T00:00:00Z"
_CONDITION: Spec = {
    "type": "Ready",
    "status": "True",
    "reason": "Succeeded",
    "message": "",
    "lastTransitionTime": _WHEN,
}


def _bad_condition(case: str, says: str, **changes: Any) -> Bad:
    return bad(case, {"conditions": [{**_CONDITION, **changes}]}, "status.conditions[0]", says)


BAD_STATUS = (
    bad("phase", {"phase": "Done"}, "status.phase: Unsupported value", '"Succeeded"'),
    bad("generation", {"observedGeneration": -2}, "status.observedGeneration", "greater than or equal to -1"),
    bad("percent", {"progress": {"percent": 101}}, "status.progress.percent", "less than or equal to 100"),
    bad("ranges", {"items": {"succeeded": "1..3"}}, "status.items.succeeded", "should match"),
    bad(
        "failure class of HTTP",
        {"failure": {"class": "queue_full", "reason": "X", "retryable": False}},
        "status.failure.class: Unsupported value",
    ),
    bad("failure without a class", {"failure": {"reason": "X", "retryable": True}}, "status.failure.class: Required"),
    bad("a URL's hash", {"artifacts": {"manifestSha256": "http://x"}}, "status.artifacts.manifestSha256"),
    bad("two of one type", {"conditions": [_CONDITION, _CONDITION]}, "status.conditions[1]: Duplicate value"),
    bad("no time", {"startTime": "yesterday"}, "status.startTime", "should be at least 20 chars long"),
    bad("a zone of 99 hours", {"startTime": "2026-01-01T00:00:00+99:00"}, "status.startTime", "times are in UTC"),
    bad("the year 0", {"startTime": "0000-01-01T00:00:00Z"}, "status.startTime", "times are in UTC"),
    bad("the 30th of February", {"startTime": "2026-02-30T00:00:00Z"}, "status.startTime", "Invalid value"),
    bad("a list of times", {"startTime": ["2026-01-01T00:00:00Z"]}, "status.startTime", "must be of type string"),
    _bad_condition("condition status", "Unsupported value", status="Maybe"),
    _bad_condition("a sentence as reason", "should match", reason="it is done"),
    _bad_condition("a novel as message", "Too long: may not be more than 4096", message="x" * 4097),
)

#: A status with every field, as an API server gives it back.
FULL_STATUS: Spec = {
    "observedGeneration": 3,
    "phase": "Failed",
    "jobId": JOB_ID,
    "attempt": 3,
    "startTime": _WHEN,
    "completionTime": "2026-01-01T00:10:00Z",
    "cancelRequestTime": "2026-01-01T00:09:00Z",
    "progress": {"percent": 75, "itemsTotal": 4, "itemsDone": 3, "etaSeconds": 0},
    "items": {"succeeded": "0-1,3", "failed": "2"},
    "gpu": {
        "product": "NVIDIA H200",
        "count": 1,
        "vramStartMiB": 4,
        "vramPeakMiB": 9000,
        "vramEndMiB": 4,
        "clean": True,
    },
    "failure": {"class": "gpu_oom", "reason": "GpuOom", "itemIndex": 2, "exitCode": 13, "retryable": False},
    "jobRef": {"name": "fox-42f5932e", "uid": JOB_ID},
    "artifacts": {"count": 3, "prefix": f"dreamforge/default/jobs/{JOB_ID}/generate/", "manifestSha256": "0" * 64},
    "conditions": [
        {**_CONDITION, "type": "Failed", "reason": "GpuOom", "message": "out of memory", "observedGeneration": 3},
        {**_CONDITION, "status": "False", "reason": "Failed", "message": "out of memory", "observedGeneration": 3},
    ],
}
