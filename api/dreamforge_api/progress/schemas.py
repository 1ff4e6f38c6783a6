"""How far a job is."""

from datetime import datetime

from pydantic import BaseModel, Field

from dreamforge.jobs import ItemState, JobState


class StepProgress(BaseModel):
    """One step of the job."""

    name: str
    status: JobState
    progress: float = Field(ge=0, le=1)
    started_at: datetime | None
    finished_at: datetime | None


class ItemProgress(BaseModel):
    """One image of the batch. The seed is drawn right before the item is rendered."""

    item_index: int
    status: ItemState
    progress: float = Field(ge=0, le=1)
    seed: int | None
    attempt: int | None


class JobProgress(BaseModel):
    """A snapshot. The job's progress is the mean of its items'."""

    status: JobState
    progress: float = Field(ge=0, le=1)
    steps: list[StepProgress]
    items: list[ItemProgress]
    queue_position: int | None
    eta_seconds: float | None
    last_seq: int = Field(description="Newest event; a stream opened with `after=last_seq` shows what follows.")
