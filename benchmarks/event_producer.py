"""A runner's sending half that may be killed at any moment: ``python -m benchmarks.event_producer JOB SPOOL EVENTS``.

Spool, outbox and Redis sink are the runner's own. What an earlier process left in the spool comes first.
"""

import argparse
import time
from pathlib import Path
from uuid import UUID

from benchmarks.bare_server import ProducerSettings
from dreamforge.events import (
    ArtifactStored,
    AttemptFinished,
    AttemptStarted,
    GpuMeasured,
    ItemProgressed,
    ItemStarted,
    Outcome,
    Stage,
)
from dreamforge.jobs import StepName
from dreamforge.settings import load
from dreamforge.transport.redis import RedisEventSink
from dreamforge_runner.outbox import Outbox
from dreamforge_runner.spool import SUFFIX, Header, Spool
from tests.jobs import Runner

ATTEMPT = "run-bench"
#: Events between two breaths; the whole takes a few seconds, so that there is a middle to be killed in.
_AT_ONCE, _BREATH_SECONDS = 20, 0.005
#: Events before the first progress.
_HEAD = 2


def _spool(folder: Path, job: UUID) -> Spool:
    left = folder / f"{ATTEMPT}{SUFFIX}"
    found = Spool.load(left) if left.exists() else None
    header = Header(job_id=job, step=StepName.GENERATE, shard=0, attempt_id=ATTEMPT, correlation_id="bench")
    return found or Spool.create(folder, header)


def _emit_from(spool: Spool, outbox: Outbox, job: UUID, events: int) -> None:
    if spool.last_seq < 1:
        outbox.emit(AttemptStarted, backend="sketch", runner="bench")
    if spool.last_seq < _HEAD:
        outbox.emit(ItemStarted, item_index=0, item_seed=7)
    while (done := spool.last_seq - _HEAD) < events:
        outbox.emit(ItemProgressed, item_index=0, stage=Stage.DENOISING, step_index=done, steps_total=events)
        if done % _AT_ONCE == 0:
            time.sleep(_BREATH_SECONDS)
    pattern = Runner(job)
    if spool.last_seq < events + _HEAD + 1:
        outbox.emit(ArtifactStored, **pattern.stored(0).model_dump(exclude={"seq", "ts", "type"}))
    if spool.last_seq < events + _HEAD + 2:
        outbox.emit(GpuMeasured, **pattern.gpu().model_dump(exclude={"seq", "ts", "type"}))
    if not spool.finished:
        outbox.emit(AttemptFinished, outcome=Outcome.SUCCEEDED, exit_code=0, items_done=1, failure=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", type=UUID)
    parser.add_argument("spool", type=Path)
    parser.add_argument("events", type=int)
    given = parser.parse_args()
    spool = _spool(given.spool, given.job)
    outbox = Outbox(spool, RedisEventSink(load(ProducerSettings).redis_url.get_secret_value()))
    outbox.start()
    _emit_from(spool, outbox, given.job, given.events)
    if not outbox.wait_drained(120):
        raise SystemExit("not drained")


if __name__ == "__main__":
    main()
