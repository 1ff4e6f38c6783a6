"""Eight writers of one job's events at once, and readers that follow: what commits late must not be skipped.

A reader that asks for ``id > last`` of a global sequence loses what a slower transaction commits below ``last``;
here ``seq`` is taken under the job row's lock, and this is the test that would show the difference.
"""

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any
from uuid import UUID

import httpx
import pytest
from redis import Redis
from sqlalchemy import Engine

from dreamforge.errors import ErrorCode
from dreamforge.events import EventBatch, Failure, Outcome
from dreamforge_api.worker.retry import RetryPolicy
from dreamforge_api.worker.signals import Signals
from dreamforge_api.worker.tasks import Ingestor
from tests.api_server import Api, poll, sse
from tests.jobs import Runner, create

WRITERS = 8
ITEMS = 12  # of each writer
IDS = list(range(WRITERS * ITEMS))


@pytest.fixture
def ingestor(engine: Engine, redis_url: str) -> Iterator[Ingestor]:
    with Redis.from_url(redis_url) as signals:
        yield Ingestor(engine, Signals(signals), RetryPolicy(), threading.Event())


def batches(runner: Runner) -> Iterator[EventBatch]:
    """Of one shard: its items one after another, a batch for every few events."""
    yield runner.batch(runner.started())
    for index in range(runner.shard * ITEMS, (runner.shard + 1) * ITEMS):
        yield runner.batch(runner.item(index))
        yield from (runner.batch(runner.progress(index, step)) for step in (10, 20))
        yield runner.batch(runner.progress(index, 30), runner.stored(index))


def write(ingestor: Ingestor, runner: Runner, together: threading.Barrier) -> None:
    together.wait(30)
    for batch in batches(runner):
        ingestor([batch.model_dump_json()])


def follow(api: Api, job_id: UUID, frames_per_connection: int | None) -> list[dict[str, Any]]:
    """Everything up to ``end``; one reader breaks off again and again and resumes."""
    seen: list[dict[str, Any]] = []
    with httpx.Client(base_url=api.url, timeout=60) as client:
        while not seen or not is_last(seen[-1]):
            after = {"Last-Event-ID": seen[-1]["id"]} if seen else {}
            stream = sse(client, f"/v1/jobs/{job_id}/progress/stream", **after)
            seen += islice((frame for frame in stream if "event" in frame), frames_per_connection)
            stream.close()
    return seen


def is_last(frame: Mapping[str, Any]) -> bool:
    """``end``, or the job's last event: who breaks off right behind it is told that nothing is missing."""
    status = frame["data"]["status"] if frame["event"] == "state" else None
    return frame["event"] == "end" or status == "failed"


def test_eight_writers_and_tailing_readers_no_event_skipped(api: Api, engine: Engine, ingestor: Ingestor) -> None:
    job_id = create(engine, count=len(IDS))
    runners = [Runner(job_id, f"run-{shard}", shard) for shard in range(WRITERS)]
    together = threading.Barrier(WRITERS)
    with ThreadPoolExecutor(WRITERS + 2) as pool:
        readers = [pool.submit(follow, api, job_id, size) for size in (None, 7)]
        poll(lambda: "dreamforge_sse_subscribers 0.0" not in api.client.get("/metrics").text, "a reader")
        for writing in [pool.submit(write, ingestor, runner, together) for runner in runners]:
            writing.result(200)
        failure = Failure(code=ErrorCode.INVALID_INPUT, message="enough")
        last = runners[0]
        ingestor([last.batch(last.gpu(), last.finished(Outcome.FAILED, failure)).model_dump_json()])
        live = [reader.result(200) for reader in readers]
    replay = list(sse(api.client, f"/v1/jobs/{job_id}/progress/stream"))
    *frames, end = [frame for frame in replay if "event" in frame]
    assert [int(frame["id"]) for frame in frames] == list(range(1, len(frames) + 1))
    assert end["data"] == {"last_seq": len(frames)}
    assert sorted(frame["data"]["item_index"] for frame in frames if frame["event"] == "artifact") == IDS
    for seen in ([frame for frame in found if frame["event"] != "end"] for found in live):
        ids = [int(frame["id"]) for frame in seen]
        assert ids == sorted(set(ids)), "in order, each once"
        skipped = {frame["event"] for frame in frames if int(frame["id"]) not in set(ids)}
        assert skipped <= {"progress"}, "only progress may be superseded"
        assert all(frame == frames[int(frame["id"]) - 1] for frame in seen)
