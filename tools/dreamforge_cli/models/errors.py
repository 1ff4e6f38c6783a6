"""What can go wrong with a download, and the exit code that tells scripts which of them it was."""

from dreamforge.errors import DreamForgeError
from dreamforge_cli import exits


class ModelError(DreamForgeError):
    """A model could not be fetched, checked or registered; the text says what to do. Never holds a token."""

    exit_code = exits.JOB_FAILED


class BadReference(ModelError):
    """The reference names nothing, or nothing of its form exists; wrong usage."""

    exit_code = exits.WRONG_USAGE


class NetworkError(ModelError):
    """The source can't be reached, stalls, or answers with errors that another try may not meet."""

    exit_code = exits.SERVER_NOT_REACHABLE


class IntegrityError(ModelError):
    """The bytes are not what the source said, or not what may be loaded."""

    exit_code = 4


class NotAllowed(ModelError):
    """The source or our own rules say no: a login, early access, an unsafe format, a private address."""

    exit_code = 5


class DiskError(ModelError):
    """No space, no permission, or a disk that fails."""

    exit_code = 6
