"""Which waiting job a warm runner takes: the first, unless one close behind needs the model that is loaded.

Loading another model takes longer than most jobs. Nobody pays for that with more than a bounded wait: a job is
overtaken only while it is young, and only by jobs that stand near it.
"""

from collections.abc import Sequence
from typing import NamedTuple

#: How far behind the first a job may stand to go before it.
LOOK_AHEAD = 8
#: No job is overtaken when it has waited longer than this.
PATIENCE_SECONDS = 30.0


class Waiting(NamedTuple):
    """A job in the queue; ``model`` is ``None`` where that can't be read."""

    job_id: str
    model: str | None
    waited_seconds: float


def choose(waiting: Sequence[Waiting], loaded: str | None) -> int:
    """The place in ``waiting`` (first come, first) of the job to take; 0 when there is nothing to gain."""
    for place, job in enumerate(waiting[:LOOK_AHEAD]):
        if job.model is not None and job.model == loaded:
            return place
        if job.waited_seconds > PATIENCE_SECONDS:
            return 0
    return 0
