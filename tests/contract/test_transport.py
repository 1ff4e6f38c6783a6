"""What every event sink promises a runner, proved on real Redis and on the twin in memory."""

import io
import json
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from dreamforge.events import Ack, EventBatch, ItemProgressed, Level, LogWritten, Stage, Verdict
from dreamforge.jobs import StepName
from dreamforge.transport import names
from dreamforge.transport.base import EventSink, TransportUnavailable
from dreamforge.transport.memory import MemoryEventSink
from dreamforge.transport.redis import RedisEventSink, connect
from dreamforge.transport.stdout import StdoutEventSink

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TEXT = "line\n\ndata: forged\x1b[31m \u2028 \U0001f409"


def batch(first: int, last: int, prev: int | None = None) -> EventBatch:
    return EventBatch(
        job_id=UUID(int=1),
        step=StepName.GENERATE,
        shard=0,
        attempt_id="run-1",
        correlation_id="corr",
        prev_seq=first - 1 if prev is None else prev,
        events=[
            LogWritten(seq=seq, ts=NOW, level=Level.INFO, code="c", message=TEXT) for seq in range(first, last + 1)
        ],
    )


class Rig(NamedTuple):
    """A sink and the far end of its pipe."""

    sink: EventSink
    arrived: Callable[[], list[EventBatch]]
    commit: Callable[[Ack], None]


def redis_rig(url: str) -> Rig:
    client = connect(url)
    queue = Queue(names.EVENTS_QUEUE, connection=client, serializer=JSONSerializer)

    def arrived() -> list[EventBatch]:
        jobs = [Job.fetch(job_id, connection=client, serializer=JSONSerializer) for job_id in queue.job_ids]
        return [EventBatch.model_validate_json(job.args[0]) for job in jobs]

    def commit(ack: Ack) -> None:
        client.set(names.ack_key(ack.attempt_id), ack.model_dump_json())

    return Rig(RedisEventSink(url), arrived, commit)


def memory_rig() -> Rig:
    sink = MemoryEventSink()
    return Rig(sink, lambda: sink.batches, lambda ack: None)


@pytest.fixture(params=["redis", "memory"])
def rig(request: pytest.FixtureRequest) -> Rig:
    return redis_rig(request.getfixturevalue("redis_db")) if request.param == "redis" else memory_rig()


def test_batches_arrive_whole_and_in_order(rig: Rig):
    sent = [batch(1, 3), batch(4, 4), batch(9, 300, prev=4)]
    for one in sent:
        rig.sink.send(one)
    assert rig.arrived() == sent


def test_the_same_batch_may_be_sent_twice(rig: Rig):
    rig.sink.send(batch(1, 2))
    rig.sink.send(batch(1, 2))
    assert [one.last_seq for one in rig.arrived()] == [2, 2]


def test_there_is_no_ack_before_the_first_commit(rig: Rig):
    assert rig.sink.ack("run-1") is None


def test_an_ack_says_how_far_it_is_safe(rig: Rig):
    rig.sink.send(batch(1, 2))
    expected = Ack(attempt_id="run-1", seq=2, verdict=Verdict.COMMITTED)
    rig.commit(expected)
    assert rig.sink.ack("run-1") == expected
    assert rig.sink.ack("run-2") is None


def test_redis_jobs_are_json_and_say_nothing_about_their_content(redis_db: str):
    RedisEventSink(redis_db).send(batch(1, 2))
    client = Redis.from_url(redis_db)
    (key,) = client.keys("rq:job:*")
    stored: dict[bytes, bytes] = client.hgetall(key)  # type: ignore[assignment] # bytes without decode_responses
    assert b"forged" not in stored[b"description"]
    assert json.loads(zlib.decompress(stored[b"data"]))[0] == names.INGEST_FUNCTION
    assert stored[b"result_ttl"] == b"0"
    assert stored[b"failure_ttl"] == str(30 * 24 * 3600).encode()
    client.close()


def test_redis_that_is_not_there_is_unavailable_and_comes_back(redis_db: str):
    absent = RedisEventSink("redis://127.0.0.1:1/0")
    with pytest.raises(TransportUnavailable) as told:
        absent.send(batch(1, 1))
    assert "127.0.0.1" not in str(told.value)
    with pytest.raises(TransportUnavailable):
        absent.ack("run-1")


def test_redis_that_refuses_writes_is_unavailable(redis_db: str):
    """Full memory with ``noeviction``: kept by the runner, not lost."""
    client, sink = Redis.from_url(redis_db), RedisEventSink(redis_db)
    client.config_set("maxmemory", "1")
    try:
        with pytest.raises(TransportUnavailable):
            sink.send(batch(1, 1))
    finally:
        client.config_set("maxmemory", "0")
    sink.send(batch(1, 1))
    client.close()


def test_an_ack_of_another_version_is_no_ack(redis_db: str):
    client = Redis.from_url(redis_db)
    client.set(names.ack_key("run-1"), '{"v": 2}')
    assert RedisEventSink(redis_db).ack("run-1") is None
    client.close()


def test_the_memory_twin_answers_as_ingest_does():
    sink = MemoryEventSink()
    sink.send(batch(1, 2))
    sink.send(batch(5, 6))
    assert sink.ack("run-1") == Ack(attempt_id="run-1", seq=2, verdict=Verdict.GAP)
    sink.send(batch(2, 6, prev=1))
    assert [event.seq for event in sink.committed("run-1")] == [1, 2, 3, 4, 5, 6]
    assert sink.ack("run-1") == Ack(attempt_id="run-1", seq=6, verdict=Verdict.COMMITTED)


def test_a_terminal_shows_each_event_once_on_one_line():
    out = io.StringIO()
    sink = StdoutEventSink(out)
    sink.send(batch(1, 2))
    sink.send(batch(1, 3))
    lines = out.getvalue().splitlines()
    assert len(lines) == 3
    assert "\x1b" not in out.getvalue()
    assert sink.ack("run-1") == Ack(attempt_id="run-1", seq=3, verdict=Verdict.COMMITTED)
    shown = ItemProgressed(seq=4, ts=NOW, item_index=0, stage=Stage.DENOISING, step_index=15, steps_total=30)
    sink.send(batch(4, 4).model_copy(update={"events": [shown]}))
    assert out.getvalue().splitlines()[-1].endswith("item 0:  47% denoising 15/30")
