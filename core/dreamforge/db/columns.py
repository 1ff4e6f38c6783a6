"""What many tables have: columns of a kind, and the condition of a closed list."""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Column, DateTime, SmallInteger, text


def one_of(column: str, values: Iterable[StrEnum]) -> str:
    """The condition that a column holds one of an enum's values; sorted, as migrations have it."""
    return f"{column} IN ({', '.join(repr(str(v)) for v in sorted(values))})"


def schema_version() -> Column[int]:
    """The version of what a row means."""
    return Column("schema_version", SmallInteger, nullable=False, server_default=text("1"))


def moment(name: str, *, now: bool = False, nullable: bool = True) -> Column[datetime]:
    """A time with its zone; ``now`` fills itself in."""
    if now:
        return Column(name, DateTime(timezone=True), nullable=False, server_default=text("now()"))
    return Column(name, DateTime(timezone=True), nullable=nullable)
