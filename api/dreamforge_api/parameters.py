"""Path, query and header values as their own types; a wrong one is a 400 that names it, a wrong id a 404."""

import base64
import re
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Path, Query, Request
from pydantic import AfterValidator, BeforeValidator
from pydantic_core import PydanticCustomError

from dreamforge.spec import UNCLEAN, Told, clean_text
from dreamforge_api import times
from dreamforge_api.problem import bad_parameter, not_found

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_DECIMAL = re.compile(r"[0-9]{1,18}")
MAX_SEQ = 10**18 - 1
_PRINTABLE = re.compile(r"[\x20-\x7e]{1,255}")
#: 16 bytes in URL-safe base64; the last letter carries two of its six bits, so each id has one cursor only.
_CURSOR = "[A-Za-z0-9_-]{21}[AQgw]"

JobIdText = Annotated[str, Path(alias="job_id", description="The job's id.", json_schema_extra={"format": "uuid"})]


def job_id_of(given: str) -> UUID:
    """A job id in its usual form; anything else names no job."""
    if not _UUID.fullmatch(given):
        raise not_found("There is no such job")
    return UUID(given)


def _decimal(given: object) -> object:
    # Pydantic would also take "1_0", " 5 " and "5.0".
    if isinstance(given, str) and not _DECIMAL.fullmatch(given):
        raise PydanticCustomError("int_parsing", "Must be a decimal integer")
    return given


def _moment(given: object) -> object:
    if not isinstance(given, str):
        return given
    try:
        return times.parse(given)
    except ValueError:
        raise PydanticCustomError("datetime_parsing", "Must be an RFC 3339 time with its zone") from None


def _label(given: str) -> str:
    key, equals, _ = given.partition("=")
    if not key or not equals:
        raise PydanticCustomError("label", "Must be key=value")
    return given


def _cursor(given: str) -> str:
    _cursor_id(given)
    return given


def _cursor_id(given: str) -> UUID:
    if not re.fullmatch(_CURSOR, given):
        raise PydanticCustomError("cursor", "Must be a next_cursor of an earlier answer")
    return UUID(bytes=base64.urlsafe_b64decode(given + "=="))


def cursor_of(job_id: UUID) -> str:
    """Where a list goes on, as the client gets it: opaque."""
    return base64.urlsafe_b64encode(job_id.bytes).decode().rstrip("=")


def id_of_cursor(cursor: str | None) -> UUID | None:
    return None if cursor is None else _cursor_id(cursor)


Limit = Annotated[int, Query(ge=1, le=200, description="Jobs on a page."), BeforeValidator(_decimal)]
Tail = Annotated[int, Query(ge=1, le=10_000, description="The newest so many events."), BeforeValidator(_decimal)]
Cursor = Annotated[
    str | None,
    Query(description="`next_cursor` of the page before."),
    AfterValidator(_cursor),
    Told(pattern=f"^{_CURSOR}$"),
]
SinceTs = Annotated[
    datetime | None,
    Query(description="Events from this time on; RFC 3339 with its zone."),
    BeforeValidator(_moment),
]
LabelFilter = Annotated[
    str,
    AfterValidator(clean_text),
    AfterValidator(_label),
    Told(pattern=f"^[^={UNCLEAN}]+=[^{UNCLEAN}]*$"),
]


def single_header(request: Request, name: str) -> str | None:
    """A header that may stand once; raises a 400 problem when it stands twice."""
    values = request.headers.getlist(name)
    if len(values) > 1:
        raise bad_parameter(name, "repeated", "Must stand once", where="header")
    return values[0] if values else None


def idempotency_key(request: Request) -> str | None:
    """The key of this request; raises a 400 problem unless it is 1 to 255 printable ASCII characters."""
    given = single_header(request, "Idempotency-Key")
    if given is not None and not _PRINTABLE.fullmatch(given):
        message = "Must be 1 to 255 printable ASCII characters"
        raise bad_parameter("Idempotency-Key", "string_pattern_mismatch", message, where="header")
    return given


def resume_from(request: Request) -> tuple[int, str, str]:
    """Where a stream goes on: ``(seq, parameter, query or header)``. The header wins over ``?after=``."""
    header, after = single_header(request, "Last-Event-ID"), request.query_params.get("after")
    for given, name, where in ((after, "after", "query"), (header, "Last-Event-ID", "header")):
        if given is not None and not _DECIMAL.fullmatch(given):
            raise bad_parameter(name, "int_parsing", "Must be the decimal id of an event", where=where)
    if header is not None:
        return int(header), "Last-Event-ID", "header"
    return int(after or 0), "after", "query"
