"""Times as the API writes and reads them: RFC 3339, UTC, milliseconds."""

import re
from datetime import UTC, datetime

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")


def now() -> datetime:
    """The clock, cut to milliseconds: what is answered and what is stored are then the same."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def text_or_none(moment: datetime | None) -> str | None:
    return None if moment is None else text(moment)


def parse(given: str) -> datetime:
    """An RFC 3339 time with its zone; raises ``ValueError``."""
    if not _RFC3339.fullmatch(given):
        raise ValueError("not an RFC 3339 time with a zone")
    moment = datetime.fromisoformat(given.upper())
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("out of range") from error
