"""The edge between commands and the server: opens the client, turns its errors into lines and exit statuses."""

from collections.abc import Iterator
from contextlib import contextmanager

from dreamforge.errors import ConfigurationError
from dreamforge.settings import load
from dreamforge_cli.client import BrokenDownload, Client, Refused, ServerUnreachable
from dreamforge_cli.console import harmless
from dreamforge_cli.exits import JOB_FAILED, SERVER_NOT_REACHABLE, WRONG_USAGE, stop
from dreamforge_cli.settings import CliSettings


@contextmanager
def server(base: str | None = None) -> Iterator[Client]:
    """A client of ``base`` (DF_API_BASE); whatever goes wrong inside ends the command with a readable line."""
    try:
        with Client(base or load(CliSettings).api_base) as client:
            yield client
    except ConfigurationError as error:
        stop(str(error), WRONG_USAGE)
    except ServerUnreachable as error:
        stop(str(error), SERVER_NOT_REACHABLE)
    except Refused as error:
        lines = "\n".join(harmless(line) for line in str(error).split("\n"))
        ours = error.status >= 500 or error.status == 429
        stop(lines, SERVER_NOT_REACHABLE if ours else WRONG_USAGE)
    except BrokenDownload as error:
        stop(str(error), JOB_FAILED)
