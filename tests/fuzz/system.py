"""The system that is called: `dreamforge up` that refuses no job for want of room, and what it says afterwards."""

from collections import Counter
from pathlib import Path

from tests.e2e.system import System
from tests.servers.stack import until

#: So high that backpressure, which has its own tests, doesn't turn every create into a 429.
_ROOM = {"DF_MAX_QUEUED": "100000"}
_LIVE = "SELECT count(*) AS n FROM jobs WHERE status IN ('queued', 'running')"


class Target(System):
    def __init__(self, data: Path) -> None:
        super().__init__(data, "--backend", "sketch", environment=_ROOM)

    def drained(self, seconds: float) -> Counter[str]:
        """How many jobs ended how, once all have: whatever a body said, its job must end."""
        until(lambda: self.rows(_LIVE)[0]["n"] == 0, seconds, "the end of all jobs")
        return Counter(
            {row["status"]: row["n"] for row in self.rows("SELECT status, count(*) AS n FROM jobs GROUP BY 1")}
        )

    def defects(self) -> list[str]:
        """What the API's log calls a defect: a request that failed with a trace."""
        return [str(line) for line in self.log_lines("api") if line["message"] == "a request failed"]
