"""Event streams over real HTTP: order, exact resume, end, bad ids, hostile text, slow readers, shutdown."""

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from dreamforge.jobs import JobState
from tests.api_server import Api, Recorder, log, parse_sse, poll, progress, sse


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, database_url: str, redis_url: str) -> Iterator[Api]:
    settings = {"DF_SSE_HEARTBEAT_SECONDS": "0.4", "DF_SSE_WINDOW_EVENTS": "100", "DF_SSE_MAX_STREAMS": "60"}
    with Api(tmp_path_factory.mktemp("api"), database_url, redis_url, **settings) as running:
        yield running


@pytest.fixture
def recorder(engine: Engine, redis_url: str) -> Iterator[Recorder]:
    made = Recorder(engine, redis_url)
    yield made
    made.close()


def path(job: dict[str, Any]) -> str:
    return str(job["urls"]["events"])


def ids(frames: list[dict[str, Any]]) -> list[int]:
    return [int(frame["id"]) for frame in frames if "id" in frame]


def ended_job(api: Api, recorder: Recorder) -> dict[str, Any]:
    """A job with 13 events, canceled."""
    job = api.create(count=2)
    recorder.run(job["id"])
    recorder.append(job["id"], *(progress(n % 2, n / 10) for n in range(10)))
    recorder.append(job["id"], log("nearly"))
    recorder.finish(job["id"])
    return job


def test_a_finished_job_replays_whole_and_ends(api: Api, recorder: Recorder) -> None:
    job = ended_job(api, recorder)
    with api.client.stream("GET", path(job)) as answer:
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-accel-buffering"] == "no"
        text = b"".join(answer.iter_bytes()).decode()
    assert text.startswith("retry: 2000\n\n")
    assert text.count("retry:") == 1
    frames = list(parse_sse(iter(text.split("\n"))))[1:]
    assert ids(frames) == list(range(1, 14))
    assert frames[0]["event"] == "state"
    assert frames[0]["data"] | {"ts": ""} == {
        "seq": 1, "ts": "", "job_id": job["id"], "step": "generate", "item_index": None, "status": "running",
        "previous": "queued", "attempt": 1,
    }  # fmt: skip
    assert frames[2]["event"] == "progress"
    assert frames[2]["data"]["item_index"] == 1
    assert (frames[-3]["event"], frames[-3]["data"]["message"]) == ("log", "nearly")
    assert (frames[-2]["event"], frames[-2]["data"]["status"]) == ("state", "canceled")
    assert frames[-1] == {"event": "end", "data": {"last_seq": 13}}


@pytest.mark.parametrize("after", range(13))
def test_every_resume_shows_exactly_the_rest(api: Api, recorder: Recorder, after: int) -> None:
    job = ended_job(api, recorder)
    rest = list(range(after + 1, 14))
    assert ids(list(sse(api.client, path(job), **{"Last-Event-ID": str(after)}))) == rest
    assert ids(list(sse(api.client, f"{path(job)}?after={after}"))) == rest
    assert ids(list(sse(api.client, f"{path(job)}?after=0", **{"Last-Event-ID": str(after)}))) == rest, "header wins"


def test_nothing_missing_on_a_finished_job_is_204(api: Api, recorder: Recorder) -> None:
    job = ended_job(api, recorder)
    answer = api.client.get(path(job), headers={"Last-Event-ID": "13"})
    assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.parametrize("wrong", ["-1", "x", "", "1.0", "0x1", "14", str(2**63), "9" * 40, "１"])
def test_a_wrong_id_is_400(api: Api, recorder: Recorder, wrong: str) -> None:
    job = ended_job(api, recorder)
    answer = api.client.get(path(job), params={"after": wrong})
    assert (answer.status_code, answer.json()["details"][0]["pointer"]) == (400, "/query/after")
    answer = api.client.get(path(job), headers=[(b"Last-Event-ID", wrong.encode())])
    assert (answer.status_code, answer.json()["details"][0]["pointer"]) == (400, "/header/Last-Event-ID")
    answer = api.client.get(f"{path(job)}?after=-1", headers={"Last-Event-ID": "0"})
    assert (answer.status_code, answer.json()["details"][0]["pointer"]) == (400, "/query/after"), "read, if not used"


def test_live_events_arrive_in_order_and_the_stream_closes(api: Api, recorder: Recorder) -> None:
    job = api.create()
    stream = (frame for frame in sse(api.client, path(job)) if "comment" not in frame)
    assert next(stream) == {"retry": "2000"}
    recorder.run(job["id"])
    assert next(stream)["data"]["status"] == "running"
    recorder.append(job["id"], progress(0, 0.5), log("half"))
    assert [next(stream)["id"], next(stream)["id"]] == ["2", "3"]
    recorder.finish(job["id"], JobState.FAILED, _ERROR)
    rest = list(stream)
    assert [frame["event"] for frame in rest] == ["error", "state", "end"]
    assert {k: rest[0]["data"][k] for k in ("code", "message", "retryable")} == {
        "code": "gpu_oom", "message": "out of memory", "retryable": False,
    }  # fmt: skip
    shown = api.client.get(job["urls"]["self"]).json()["error"]
    assert shown == {"code": "gpu_oom", "message": "out of memory", "retryable": False, "item_index": None}


_ERROR = {"code": "gpu_oom", "message": "out of memory", "retryable": False, "item_index": None}


def test_a_reader_in_the_middle_of_the_work_joins_replay_and_live_without_a_gap(api: Api, recorder: Recorder) -> None:
    """More events than the window holds, so the replay comes from the database, while new ones are written."""
    job = api.create()
    recorder.run(job["id"])
    for _ in range(4):
        recorder.append(job["id"], *(progress(0, 0.1) for _ in range(150)))
    stream = sse(api.client, path(job))
    next(stream)
    first = [next(stream) for _ in range(50)]
    recorder.append(job["id"], *(progress(0, 0.2) for _ in range(30)))
    last = recorder.finish(job["id"])
    seen = ids(first + list(stream))
    assert seen == list(range(1, last + 1))


def test_an_idle_stream_says_that_it_lives(api: Api) -> None:
    stream = sse(api.client, path(api.create()))
    assert next(stream) == {"retry": "2000"}
    assert "comment" in next(stream)


HOSTILE = [
    'x\n\nevent: end\ndata: {"last_seq": 9}\n\n',
    "a\r\nid: 99\r\n",
    '{"seq":1}\n{"seq":2}',
    "\u2028\u2029\x85",
]


def test_hostile_text_forges_nothing_in_stream_and_log(api: Api, recorder: Recorder) -> None:
    job = api.create()
    recorder.append(job["id"], *(log(text) for text in HOSTILE))
    last = recorder.finish(job["id"])
    frames = list(sse(api.client, path(job)))[1:]
    assert ids(frames) == list(range(1, last + 1))
    assert [frame["event"] for frame in frames] == ["log"] * len(HOSTILE) + ["state", "end"]
    assert [frame["data"]["message"] for frame in frames[: len(HOSTILE)]] == HOSTILE
    lines = api.client.get(job["urls"]["logs"]).content.split(b"\n")
    assert lines.pop() == b""
    assert [json.loads(line)["seq"] for line in lines] == list(range(1, last + 1))
    assert [json.loads(line)["message"] for line in lines[: len(HOSTILE)]] == HOSTILE


def test_many_readers_see_the_same(api: Api, recorder: Recorder) -> None:
    job = api.create()

    def read(_: int) -> list[int]:
        with httpx.Client(base_url=api.url, timeout=20) as client:
            return ids(list(sse(client, path(job))))

    with ThreadPoolExecutor(10) as pool:
        reading = [pool.submit(read, n) for n in range(10)]
        poll(lambda: "dreamforge_sse_subscribers 10.0" in api.client.get("/metrics").text, "ten readers")
        recorder.run(job["id"])
        for n in range(20):
            recorder.append(job["id"], progress(0, n / 20))
        last = recorder.finish(job["id"])
        assert [one.result() for one in reading] == [list(range(1, last + 1))] * 10
    poll(lambda: "dreamforge_sse_subscribers 0.0" in api.client.get("/metrics").text, "no reader left")


def _raw(api: Api, job: dict[str, Any]) -> socket.socket:
    """A reader that takes as little as it can."""
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.connect(("127.0.0.1", api.port))
    reader.sendall(f"GET {path(job)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    return reader


def _drain(reader: socket.socket) -> str:
    """All that is left, without the chunk sizes."""
    parts = []
    while part := reader.recv(65_536):
        parts.append(part)
    _, _, body = b"".join(parts).partition(b"\r\n\r\n")
    text = ""
    while body:
        size, _, body = body.partition(b"\r\n")
        text += body[: int(size, 16)].decode()
        body = body[int(size, 16) + 2 :]
    return text


def test_a_slow_reader_misses_superseded_progress_and_nothing_else(
    tmp_path: Path, database_url: str, redis_url: str, recorder: Recorder
) -> None:
    patient = {"DF_SSE_LAG_EVENTS": "50", "DF_SSE_SEND_TIMEOUT_SECONDS": "250"}
    with Api(tmp_path, database_url, redis_url, **patient) as api:
        job = api.create(count=2)
        recorder.run(job["id"])
        reader = _raw(api, job)
        poll(lambda: "dreamforge_sse_subscribers 1.0" in api.client.get("/metrics").text, "the reader")
        padding = "x" * 2000
        for n in range(100):  # 2 MB and more: far beyond what sockets buffer
            recorder.append(
                job["id"],
                *({**progress(item, n / 100), "payload": {"pad": padding}} for item in (0, 1) for _ in range(10)),
                log(str(n)),
            )
        last = recorder.finish(job["id"])
        frames = list(parse_sse(iter(_drain(reader).split("\n"))))
        reader.close()
        seen = ids(frames)
        assert seen == sorted(set(seen))
        assert len(seen) < last - 500, "much progress was skipped"
        assert [frame["data"]["message"] for frame in frames if frame.get("event") == "log"] == [
            str(n) for n in range(100)
        ]
        # The last round was ten of item 0, ten of item 1, one log line: the newest of each item is never superseded.
        closing = next(int(frame["id"]) for frame in frames if frame.get("data", {}).get("message") == "99")
        assert {closing - 11, closing - 1} <= set(seen)
        assert frames[-1]["data"] == {"last_seq": last}
        assert _superseded(api) == last - len(seen)


def _superseded(api: Api) -> float:
    line = next(
        line
        for line in api.client.get("/metrics").text.splitlines()
        if line.startswith("dreamforge_sse_superseded_total ")
    )
    return float(line.rpartition(" ")[2])


def test_a_reader_that_takes_nothing_is_dropped_and_hurts_no_one(
    tmp_path: Path, database_url: str, redis_url: str, recorder: Recorder
) -> None:
    with Api(tmp_path, database_url, redis_url, DF_SSE_SEND_TIMEOUT_SECONDS="4") as api:
        job = api.create()
        recorder.run(job["id"])
        stuck = _raw(api, job)
        poll(lambda: "dreamforge_sse_subscribers 1.0" in api.client.get("/metrics").text, "the reader")
        for _ in range(20):
            recorder.append(job["id"], *(log("x" * 4000) for _ in range(50)))
        poll(lambda: "dreamforge_sse_subscribers 0.0" in api.client.get("/metrics").text, "the reader to be dropped")
        last = recorder.finish(job["id"])
        assert ids(list(sse(api.client, path(job)))) == list(range(1, last + 1))
        stuck.close()


def test_more_streams_than_allowed_is_429(tmp_path: Path, database_url: str, redis_url: str) -> None:
    with Api(tmp_path, database_url, redis_url, DF_SSE_MAX_STREAMS="1") as api:
        job = api.create()
        with httpx.Client(base_url=api.url) as other, other.stream("GET", path(job)) as open_one:
            assert open_one.status_code == 200
            refused = api.client.get(path(job))
            assert (refused.status_code, refused.json()["code"]) == (429, "too_many_streams")
            assert int(refused.headers["retry-after"]) >= 1
        poll(lambda: api.client.stream("GET", path(job)).__enter__().status_code == 200, "a free place")


def test_a_stop_ends_open_streams_promptly(tmp_path: Path, database_url: str, redis_url: str) -> None:
    with Api(tmp_path, database_url, redis_url) as api:
        stream = sse(api.client, path(api.create()))
        next(stream)
        api.stop()
        assert "graceful shutdown exceeded" not in api.log.read_text()
        with pytest.raises((StopIteration, httpx.RemoteProtocolError)):
            next(stream)
        assert api.process is not None
        assert api.process.returncode == 0


def test_events_arrive_without_redis_too(tmp_path: Path, database_url: str, engine: Engine) -> None:
    recorder = Recorder(engine)
    with Api(tmp_path, database_url, "redis://127.0.0.1:1/0") as api:
        job = api.create()
        stream = sse(api.client, path(job))
        next(stream)
        recorder.run(job["id"])
        assert next(stream)["data"]["status"] == "running"
        recorder.finish(job["id"])
        assert [frame["event"] for frame in stream] == ["state", "end"]
        ready = api.client.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["checks"]["redis"]["ok"] is False
        assert ready.json()["checks"]["database"]["ok"] is True
        assert int(ready.headers["retry-after"]) >= 1


def test_the_first_event_is_there_at_once(api: Api, recorder: Recorder) -> None:
    """Announced events do not wait for a poll: a hundred of them, one after the other, take no hundred seconds."""
    job = api.create()
    stream = sse(api.client, path(job))
    next(stream)
    began = time.monotonic()
    for n in range(100):
        recorder.append(job["id"], log(str(n)))
        assert next(frame for frame in stream if "id" in frame)["data"]["message"] == str(n)
    assert time.monotonic() - began < 90
