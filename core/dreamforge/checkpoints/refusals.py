"""The two things that can be wrong with a model on disk."""

from dreamforge.errors import ErrorCode, JobError


def missing(message: str) -> JobError:
    return JobError(ErrorCode.MODEL_MISSING, message)


def invalid(message: str) -> JobError:
    return JobError(ErrorCode.MODEL_INVALID, message)
