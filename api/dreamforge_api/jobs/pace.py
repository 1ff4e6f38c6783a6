"""How long items of a model take lately: read seldom, told often."""

import time

from dreamforge.db import jobs
from dreamforge_api.database import Database

_FRESH_SECONDS = 5.0


class Pace:
    """Mean seconds per item by model, at most five seconds old where it matters."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[str, tuple[float, float | None]] = {}

    def last_known(self, model_id: str) -> float | None:
        """Without asking the database; good enough for an estimate beside a new job."""
        return self._known.get(model_id, (0.0, None))[1]

    async def seconds_per_item(self, model_id: str) -> float | None:
        read_at, seconds = self._known.get(model_id, (float("-inf"), None))
        if time.monotonic() - read_at > _FRESH_SECONDS:
            found = await self._database.scalar(jobs.recent_item_seconds(model_id))
            seconds = None if found is None else float(found)
            self._known[model_id] = (time.monotonic(), seconds)
        return seconds
