"""One line of a job's log."""

from datetime import datetime

from pydantic import BaseModel, Field

from dreamforge.events import Level


class LogLine(BaseModel):
    """An event of the job as a line; ``code`` is a stable word a program can match."""

    seq: int = Field(ge=1, description="Counts from 1 within the job.")
    ts: datetime
    level: Level
    code: str
    message: str
    step: str
    item_index: int | None
    attempt: int | None
