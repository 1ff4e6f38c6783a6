"""One log format for every process: NDJSON on stderr, with the fields that tie a line to a job.

Bind ``job_id``, ``step``, ``attempt`` and ``correlation_id`` with :func:`bound`; they then stand in every line of
that thread or task. Never pass a prompt, a URL with a signature, or a secret: :func:`_redact` drops the
field names that would hold one, as a second net.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

_FORBIDDEN = frozenset(
    {
        "prompt",
        "negative_prompt",
        "params",
        "authorization",
        "token",
        "password",
        "secret",
        "url",
        "signature",
    }
)


def _redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    for name in _FORBIDDEN & event.keys():
        event[name] = "[redacted]"
    return event


def _stdlib_fields(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    record = event.get("_record")
    if isinstance(record, logging.LogRecord):
        event["logger"] = record.name
    return event


def configure(process: str, level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send this process's logs, and those of every library, to ``stream`` (stderr) as one JSON object a line."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        _redact,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        cache_logger_on_first_use=True,
    )

    def stamp(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event["process"] = process
        return event

    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                _stdlib_fields,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                stamp,
                structlog.processors.format_exc_info,
                structlog.processors.EventRenamer("message"),
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for chatty in ("botocore", "boto3", "urllib3", "rq", "alembic", "uvicorn.access"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))


def logger(name: str) -> FilteringBoundLogger:
    """A structured logger: ``log.info("what happened", field=value)``."""
    bound_logger: FilteringBoundLogger = structlog.get_logger(name)
    return bound_logger


@contextmanager
def bound(**fields: object) -> Iterator[None]:
    """Put ``fields`` into every line logged inside the block."""
    with structlog.contextvars.bound_contextvars(**{k: str(v) for k, v in fields.items() if v is not None}):
        yield
