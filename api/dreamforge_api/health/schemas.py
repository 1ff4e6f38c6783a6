"""What the health calls answer."""

from typing import Literal

from pydantic import BaseModel


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"]


class CheckResult(BaseModel):
    """One part."""

    ok: bool
    detail: str


class Ready(BaseModel):
    """Every part, and whether all of them work."""

    status: Literal["ready", "unavailable"]
    checks: dict[str, CheckResult]
