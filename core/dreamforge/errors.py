"""The closed list of things that can go wrong, and what each one means to every process.

One enum names them all; :data:`FACTS` says for each whether a retry can help, which exit code a runner
leaves with, and which HTTP status the API answers. The API's error body, job errors, events, Kubernetes
conditions and metric labels all carry the same word.

    DreamForgeError
    ├── JobError             a job, item or attempt ended badly (carries an ErrorCode)
    ├── Unavailable          a dependency is down; try again later
    └── ConfigurationError   a setting is wrong; the process must not start
"""

from enum import StrEnum
from typing import NamedTuple


class ErrorCode(StrEnum):
    """Why a request, an item, an attempt or a job failed."""

    # What a runner can end with. Exit codes are a contract with pod failure policies.
    INVALID_INPUT = "invalid_input"
    MODEL_MISSING = "model_missing"
    MODEL_INVALID = "model_invalid"
    GPU_OOM = "gpu_oom"
    DISK_FULL = "disk_full"
    STORAGE_ERROR = "storage_error"
    PROVIDER_ERROR = "provider_error"
    GPU_FAULT = "gpu_fault"
    STOPPED = "stopped"
    ITEM_TIMEOUT = "item_timeout"
    # What the control loop finds out about a job from outside.
    RUNNER_LOST = "runner_lost"
    HOST_OOM = "host_oom"
    JOB_TIMEOUT = "job_timeout"
    DISPATCH_REFUSED = "dispatch_refused"
    INTERNAL = "internal"
    # What only an HTTP caller sees.
    MALFORMED_BODY = "malformed_body"
    BODY_TOO_LARGE = "body_too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    INVALID_PARAMETER = "invalid_parameter"
    UNKNOWN_MODEL = "unknown_model"
    UNKNOWN_PRESET = "unknown_preset"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    IDEMPOTENCY_KEY_IN_USE = "idempotency_key_in_use"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    FORBIDDEN = "forbidden"
    QUEUE_FULL = "queue_full"
    TOO_MANY_STREAMS = "too_many_streams"
    UNAVAILABLE = "unavailable"


class Facts(NamedTuple):
    """What a code means to each reader; ``None`` where that reader never meets it."""

    title: str
    retryable: bool
    exit_code: int | None
    http_status: int | None


FACTS: dict[ErrorCode, Facts] = {
    ErrorCode.INVALID_INPUT: Facts("The input breaks a rule", False, 10, 422),
    ErrorCode.MODEL_MISSING: Facts("The model's files are not where they should be", False, 11, None),
    ErrorCode.MODEL_INVALID: Facts("The model's files can't be loaded", False, 12, None),
    ErrorCode.GPU_OOM: Facts("The GPU has too little memory for this job", False, 13, None),
    ErrorCode.DISK_FULL: Facts("No space left on a disk the runner needs", True, 14, None),
    ErrorCode.STORAGE_ERROR: Facts("The object store refused or lost a write", True, 20, None),
    ErrorCode.PROVIDER_ERROR: Facts("The render backend failed", True, 21, None),
    ErrorCode.GPU_FAULT: Facts("The GPU or its driver failed", True, 22, None),
    ErrorCode.STOPPED: Facts("Stopped on request", True, 30, None),
    ErrorCode.ITEM_TIMEOUT: Facts("One item took longer than allowed", True, 31, None),
    ErrorCode.RUNNER_LOST: Facts("The runner vanished", True, None, None),
    ErrorCode.HOST_OOM: Facts("The host killed the runner for its memory", True, None, None),
    ErrorCode.JOB_TIMEOUT: Facts("The job's deadline passed", False, None, None),
    ErrorCode.DISPATCH_REFUSED: Facts("The executor refused the job for good", False, None, None),
    ErrorCode.INTERNAL: Facts("A defect in Dream Forge", False, 1, 500),
    ErrorCode.MALFORMED_BODY: Facts("The body is not JSON", False, None, 400),
    ErrorCode.BODY_TOO_LARGE: Facts("The body is too large", False, None, 413),
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: Facts("The body must be application/json", False, None, 415),
    ErrorCode.INVALID_PARAMETER: Facts("A query parameter or header breaks a rule", False, None, 400),
    ErrorCode.UNKNOWN_MODEL: Facts("No such model is installed and enabled", False, None, 422),
    ErrorCode.UNKNOWN_PRESET: Facts("No such preset", False, None, 422),
    ErrorCode.IDEMPOTENCY_KEY_REUSED: Facts("The key was used with another body", False, None, 422),
    ErrorCode.IDEMPOTENCY_KEY_IN_USE: Facts("The first request with this key is still running", True, None, 409),
    ErrorCode.NOT_FOUND: Facts("No such resource", False, None, 404),
    ErrorCode.METHOD_NOT_ALLOWED: Facts("This resource has no such method", False, None, 405),
    ErrorCode.FORBIDDEN: Facts("The link is not valid", False, None, 403),
    ErrorCode.QUEUE_FULL: Facts("The queue is full", True, None, 429),
    ErrorCode.TOO_MANY_STREAMS: Facts("Too many open streams", True, None, 429),
    ErrorCode.UNAVAILABLE: Facts("A dependency is not reachable", True, None, 503),
}

#: What a job can do to its runner: after a second time it is a dead letter, not work.
POISONOUS = frozenset({ErrorCode.RUNNER_LOST, ErrorCode.HOST_OOM})

_BY_EXIT_CODE = {facts.exit_code: code for code, facts in FACTS.items() if facts.exit_code is not None}


def from_exit_code(exit_code: int) -> ErrorCode | None:
    """The class a runner's exit code stands for; ``None`` for 0.

    Negative values are signals, as :mod:`subprocess` reports them. Anything unknown is ``RUNNER_LOST``:
    the process did not get to say why it ended.
    """
    if exit_code == 0:
        return None
    return _BY_EXIT_CODE.get(exit_code, ErrorCode.RUNNER_LOST)


class DreamForgeError(Exception):
    """Root of every error this project raises on purpose."""


class JobError(DreamForgeError):
    """A job, item or attempt ended badly; ``message`` is for people and never holds a prompt or a secret."""

    def __init__(self, code: ErrorCode, message: str, *, item_index: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.item_index = item_index

    @property
    def retryable(self) -> bool:
        return FACTS[self.code].retryable


class Unavailable(DreamForgeError):
    """A dependency (database, Redis, object store, cluster) can't be reached now; a later try may work."""


class ConfigurationError(DreamForgeError):
    """A setting is wrong; the text names the variable and what to write instead."""
