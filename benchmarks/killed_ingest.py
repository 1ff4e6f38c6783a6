"""E3: what is lost or doubled of a stream of events while producer and consumer are killed again and again."""

import time
from itertools import cycle
from uuid import UUID

from benchmarks.harness import Absolute, Result
from benchmarks.processes import Program
from benchmarks.stack import Servers
from dreamforge.db.engine import open_engine
from tests.jobs import create, rows

EVENTS = 30_000
KILLS = 6
_BETWEEN_SECONDS = 1.5
_PATIENCE_SECONDS = 120.0
_SEEN = """
SELECT count(*) FILTER (WHERE e.payload ->> 'stage' = 'denoising') AS written,
       count(DISTINCT e.payload ->> 'step_index') FILTER (WHERE e.payload ->> 'stage' = 'denoising') AS different,
       max(e.seq) - count(*) AS gaps, max(e.seq) AS newest, min(j.status) AS status
FROM jobs j LEFT JOIN events e ON e.job_id = j.id WHERE j.id = :job
"""


class _Run:
    """One job, a producer, a consumer."""

    def __init__(self, servers: Servers, number: int) -> None:
        self._engine = open_engine(servers.database_url)
        self.job: UUID = create(self._engine, count=1)
        self._folder = servers.folder / f"killed-{number}"
        self._folder.mkdir()
        self._settings = {
            "DF_DATABASE_URL": servers.database_url,
            "DF_REDIS_URL": servers.redis_url,
            "DF_STORE_ROOT": str(self._folder / "objects"),
            "DF_SILENCE_SECONDS": "300",
        }
        self.sides = {"consumer": self._consumer(), "producer": self._producer()}

    def kill(self, side: str) -> None:
        """SIGKILL, and a new one at once."""
        self.sides[side].kill()
        self.sides[side] = self._consumer() if side == "consumer" else self._producer()

    def seen(self) -> dict[str, int | str]:
        return rows(self._engine, _SEEN, job=self.job)[0]

    def wait(self) -> dict[str, int | str]:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while (seen := self.seen())["status"] != "succeeded":
            if time.monotonic() > deadline:
                raise RuntimeError(f"the events did not arrive: {seen}")
            time.sleep(0.2)
        return seen

    def stop(self) -> None:
        for side in self.sides.values():
            side.stop()
        self._engine.dispose()

    def _consumer(self) -> Program:
        return Program("consumer", ["dreamforge_api.worker"], self._folder, self._settings)

    def _producer(self) -> Program:
        argv = ["benchmarks.event_producer", str(self.job), str(self._folder / "spool"), str(EVENTS)]
        return Program("producer", argv, self._folder, self._settings)


def run(servers: Servers, pairs: int = 5) -> list[Result]:
    """Measure E3."""
    result = Absolute("E3", f"events lost, doubled or skipped in {KILLS} kills of {EVENTS}", "events", 0)
    began = time.monotonic()
    for number in range(min(pairs, 2)):
        run = _Run(servers, number)
        try:
            alive = 0
            for _, side in zip(range(KILLS), cycle(run.sides), strict=False):
                time.sleep(_BETWEEN_SECONDS)
                alive += run.seen()["status"] != "succeeded"
                run.kill(side)
            seen = run.wait()
        finally:
            run.stop()
        lost, doubled = EVENTS - int(seen["different"]), int(seen["written"]) - int(seen["different"])
        result.ours.append(float(lost + doubled + int(seen["gaps"])))
        result.notes.append(
            f"{alive} of {KILLS} kills while events were on their way: {lost} lost, {doubled} doubled, "
            f"{seen['gaps']} numbers skipped, {seen['newest']} events stored"
        )
    result.seconds = time.monotonic() - began
    return [result]
