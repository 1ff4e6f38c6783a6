"""Jobs over REST: create, list, get, cancel, idempotency, limits; on a real server, Postgres and Redis."""

import asyncio
import json
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from sqlalchemy import Engine, text

from dreamforge.transport import names
from tests.api_server import Api, Recorder
from tests.servers import postgres

PROBLEM = "application/problem+json"
FIELDS = {
    "id", "type", "provider", "model_id", "status", "progress", "created_at", "started_at", "finished_at", "attempt",
    "params", "preset", "labels", "count", "completed", "queue_position", "eta_seconds", "warnings", "error",
    "executor", "urls", "deadline_at", "cancel_requested_at",
}  # fmt: skip


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, database_url: str, redis_url: str) -> Iterator[Api]:
    """With room for all that these tests post; the queue's limit has a test and a server of its own."""
    with Api(tmp_path_factory.mktemp("api"), database_url, redis_url, DF_MAX_QUEUED="100000") as running:
        yield running


def test_a_new_job_is_answered_whole_and_reads_back_the_same(api: Api) -> None:
    body = {"type": "generate", "prompt": "an old-growth forest at dawn", "steps": 24, "guidance": 7.0}
    answer = api.client.post("/v1/jobs", json=body)
    assert answer.status_code == 202
    job = answer.json()
    assert set(job) == FIELDS
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert uuid.UUID(job["id"]).version == 7
    assert (job["status"], job["progress"], job["count"], job["completed"], job["attempt"]) == ("queued", 0, 1, 0, 0)
    assert job["params"] == {
        "prompt": "an old-growth forest at dawn", "negative_prompt": None, "width": 1024, "height": 1024, "steps": 24,
        "guidance": 7.0, "scheduler": "euler", "seed": None, "count": 1, "format": "png", "embed_metadata": True,
    }  # fmt: skip
    assert job["created_at"].endswith("Z")
    again = api.client.get(answer.headers["location"]).json()
    ignored = {"queue_position", "eta_seconds"}
    assert {k: v for k, v in again.items() if k not in ignored} == {k: v for k, v in job.items() if k not in ignored}
    for name, url in job["urls"].items():
        if name not in ("cancel", "events"):
            assert api.client.get(url).status_code == 200, name


def test_the_default_model_is_sketch_and_says_so_and_a_chosen_one_does_not(api: Api) -> None:
    default = api.create()
    assert default["model_id"] == "sketch"
    assert len(default["warnings"]) == 1
    assert "not a diffusion model" in default["warnings"][0]
    assert "DF_GENERATE_MODEL_PATH" in default["warnings"][0]
    assert api.create(model_id="sketch")["warnings"] == []


def test_a_seed_for_a_batch_is_ignored_and_the_answer_says_so(api: Api) -> None:
    batch = api.create(model_id="sketch", seed=7, count=5)
    assert batch["params"]["seed"] is None
    assert "seed is ignored" in batch["warnings"][0]
    assert api.create(model_id="sketch", seed=7)["params"]["seed"] == 7


def test_a_preset_fills_what_was_left_out(api: Api) -> None:
    params = api.create(preset="portrait@1", steps=5, width=None)["params"]
    assert (params["width"], params["height"], params["steps"]) == (832, 1216, 5)
    refused = api.client.post("/v1/jobs", json={"prompt": "x", "preset": "nope"})
    assert (refused.status_code, refused.json()["code"]) == (422, "unknown_preset")
    assert "portrait@1" in refused.json()["details"][0]["allowed"]


def test_an_unknown_model_is_refused_with_the_known_ones(api: Api, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO models (id, name, kind, version, source_uri, local_path, installed, enabled,"
                " parameters_schema, capabilities) VALUES ('off', 'Off', 'sdxl-checkpoint', '1', 'file:x', '/x',"
                " true, false, '{}', '[]') ON CONFLICT DO NOTHING"
            )
        )
    for model_id in ("nope", "a/b", "off", "SKETCH"):
        refused = api.client.post("/v1/jobs", json={"prompt": "x", "model_id": model_id})
        assert (refused.status_code, refused.json()["code"]) == (422, "unknown_model"), model_id
        assert refused.json()["details"][0]["allowed"] == ["sketch"]
    shown = [m["id"] for m in api.client.get("/v1/models").json()["items"]]
    assert shown == ["sketch"]
    assert [m["id"] for m in api.client.get("/v1/models?enabled=false").json()["items"]] == ["off"]
    assert api.client.get("/v1/models?enabled=maybe").status_code == 400
    assert api.client.get("/v1/models/sketch").json()["parameters_schema"]["properties"]["steps"]["maximum"] == 150
    assert api.client.get("/v1/models/none").status_code == 404


def test_the_list_pages_newest_first_and_filters(api: Api) -> None:
    made = [api.create(labels={"set": "paging", "n": str(n)})["id"] for n in range(5)]
    seen: list[str] = []
    cursor: str | None = None
    while True:
        query = {"label": "set=paging", "limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = api.client.get("/v1/jobs", params=query).json()
        seen += [job["id"] for job in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == made[::-1]
    one = api.client.get("/v1/jobs", params=[("label", "set=paging"), ("label", "n=3")]).json()["items"]
    assert [job["id"] for job in one] == [made[3]]
    assert one[0]["queue_position"] == api.client.get(f"/v1/jobs/{made[3]}").json()["queue_position"]
    assert api.client.get("/v1/jobs?status=succeeded").json() == {"items": [], "next_cursor": None}
    assert api.client.get("/v1/jobs?model_id=none").json()["items"] == []
    assert len(api.client.get("/v1/jobs?model_id=sketch&status=queued&limit=1").json()["items"]) == 1


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=201", "limit=-1", "limit=1_0", "limit=5.0", "limit=", "limit=x", "cursor=x", "cursor=!!",
        "cursor=" + "A" * 80, "cursor=", "status=done", "status=", "label=novalue", "label==v", "model_id=%00",
        "label=a%00=b", "limit=99999999999999999999",
    ],
)  # fmt: skip
def test_a_bad_list_parameter_is_400_and_named(api: Api, query: str) -> None:
    answer = api.client.get(f"/v1/jobs?{query}")
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == PROBLEM
    assert answer.json()["code"] == "invalid_parameter"
    assert answer.json()["details"][0]["pointer"].startswith(f"/query/{query.partition('=')[0]}")


@pytest.mark.parametrize("suffix", ["", "/artifacts", "/logs", "/progress", "/progress/stream", "/cancel"])
@pytest.mark.parametrize(
    "job_id", [str(uuid.uuid4()), "x", "{01a1fd5c-9981-7483-9833-4709df31d11f}", "01a1fd5c", "%00", "..%2f"]
)
def test_an_unknown_job_is_404_everywhere(api: Api, job_id: str, suffix: str) -> None:
    method = "POST" if suffix == "/cancel" else "GET"
    answer = api.client.request(method, f"/v1/jobs/{job_id}{suffix}")
    assert answer.status_code == 404, answer.text
    assert answer.headers["content-type"] == PROBLEM
    assert answer.json()["code"] == "not_found"


def test_wrong_methods_and_paths_are_problems(api: Api) -> None:
    wrong = api.client.put("/v1/jobs")
    assert (wrong.status_code, wrong.headers["allow"], wrong.headers["content-type"]) == (405, "GET, POST", PROBLEM)
    assert api.client.get("/v1/jobs/x/cancel").status_code == 405
    nowhere = api.client.get("/v2/nothing")
    assert (nowhere.status_code, nowhere.json()["code"], nowhere.json()["instance"]) == (
        404,
        "not_found",
        "/v2/nothing",
    )
    assert set(nowhere.json()) == {
        "type", "title", "status", "detail", "instance", "code", "message", "details", "correlation_id", "job_id",
    }  # fmt: skip


def test_a_correlation_id_is_taken_or_drawn_and_stored(api: Api, engine: Engine) -> None:
    given = api.client.post("/v1/jobs", json={"prompt": "x"}, headers={"X-Correlation-ID": "trace-1"})
    assert given.headers["x-correlation-id"] == "trace-1"
    with engine.connect() as connection:
        row = connection.execute(
            text("SELECT correlation_id FROM jobs WHERE id = :id"), {"id": given.json()["id"]}
        ).scalar_one()
    assert row == "trace-1"
    for unsafe in ("a b", "x" * 129, '"'):
        drawn = api.client.get("/v1/jobs/none", headers={"X-Correlation-ID": unsafe})
        assert drawn.headers["x-correlation-id"] != unsafe
        assert drawn.json()["correlation_id"] == drawn.headers["x-correlation-id"]


def test_a_queued_job_is_canceled_at_once_and_only_once(api: Api, engine: Engine) -> None:
    job = api.create()
    first = api.client.post(job["urls"]["cancel"])
    assert (first.status_code, first.json()["status"]) == (202, "canceled")
    assert first.json()["cancel_requested_at"] is not None
    assert first.json()["error"] is None
    again = api.client.post(job["urls"]["cancel"])
    assert again.status_code == 200
    assert again.json() == first.json()
    with engine.connect() as connection:
        ends = connection.execute(text("SELECT payload FROM events WHERE job_id = :id"), {"id": job["id"]}).scalars()
        assert [end["status"] for end in ends] == ["canceled"]


def test_canceling_a_running_job_asks_and_keeps_the_first_time(api: Api, engine: Engine) -> None:
    job = api.create()
    Recorder(engine).run(job["id"])
    first = api.client.post(job["urls"]["cancel"]).json()
    again = api.client.post(job["urls"]["cancel"])
    assert (again.status_code, again.json()["status"]) == (202, "running")
    assert again.json()["cancel_requested_at"] == first["cancel_requested_at"] is not None


def test_the_control_loop_is_woken_after_a_create(api: Api, redis_url: str) -> None:
    client = redis.Redis.from_url(redis_url)
    with client.pubsub(ignore_subscribe_messages=True) as channel:  # type: ignore[no-untyped-call]  # redis-py's own
        channel.subscribe(names.WAKE_CHANNEL)
        channel.get_message(timeout=5)  # the subscription itself
        api.create()
        heard = None
        for _ in range(50):
            heard = heard or channel.get_message(timeout=0.2)
        assert heard is not None
    client.close()


def _keyed(api: Api, key: str, **body: Any) -> httpx.Response:
    return api.client.post("/v1/jobs", json={"prompt": "x", **body}, headers={"Idempotency-Key": key})


def test_the_same_key_and_body_replay_the_first_answer_bytes(api: Api) -> None:
    key = uuid.uuid4().hex
    first = _keyed(api, key, width=512, labels={"a": "1", "b": "2"})
    assert first.status_code == 202
    assert "idempotency-replayed" not in first.headers
    # Equal after validation: defaults written out, null as absent, another order, 7 for 7.0.
    same = _keyed(api, key, labels={"b": "2", "a": "1"}, seed=None, guidance=7, width=512, count=1)
    assert same.status_code == 202
    assert same.headers["idempotency-replayed"] == "true"
    assert same.content == first.content
    assert same.headers["location"] == first.headers["location"]
    other = _keyed(api, key, width=768)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


def test_a_refused_create_takes_no_key(api: Api) -> None:
    key = uuid.uuid4().hex
    assert _keyed(api, key, width=7).status_code == 422
    assert _keyed(api, key, model_id="nope").status_code == 422
    assert _keyed(api, key, width=512).status_code == 202


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\xe9", "a\tb"])
def test_a_bad_key_is_400(api: Api, key: str) -> None:
    answer = api.client.post("/v1/jobs", json={"prompt": "x"}, headers=[(b"Idempotency-Key", key.encode("latin-1"))])
    assert answer.status_code == 400, answer.text
    assert answer.json()["details"][0]["pointer"] == "/header/Idempotency-Key"


def test_a_key_may_stand_once_and_be_255_long(api: Api) -> None:
    twice = api.client.post(
        "/v1/jobs", json={"prompt": "x"}, headers=[("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    )
    assert twice.status_code == 400
    assert _keyed(api, uuid.uuid4().hex * 7 + "x" * 31).status_code == 202


def test_a_thousand_posts_at_once_on_a_hundred_keys_make_a_hundred_jobs(api: Api, engine: Engine) -> None:
    keys = [uuid.uuid4().hex for _ in range(100)]
    label = uuid.uuid4().hex
    body = {"prompt": "x", "labels": {"race": label}}

    async def post(client: httpx.AsyncClient, key: str) -> tuple[str, bytes]:
        while True:
            answer = await client.post("/v1/jobs", json=body, headers={"Idempotency-Key": key})
            if answer.status_code == 202:
                return key, answer.content
            # On a machine that is busy otherwise an answer may come too late; with a key it is safe to ask again.
            late = (409, "idempotency_key_in_use"), (503, "unavailable")
            assert (answer.status_code, answer.json()["code"]) in late
            await asyncio.sleep(0.1)

    async def each_key_once() -> list[tuple[str, bytes]]:
        async with httpx.AsyncClient(base_url=api.url, timeout=120) as client:
            return await asyncio.gather(*(post(client, key) for key in keys))

    async def race() -> list[tuple[str, bytes]]:
        found = await asyncio.gather(*(each_key_once() for _ in range(10)))
        return [answer for answers in found for answer in answers]

    answers = asyncio.run(race())
    assert len(answers) == 1000
    assert len(set(answers)) == 100, "every replay is the first answer, byte for byte"
    ids = {json.loads(content)["id"] for _, content in answers}
    with engine.connect() as connection:
        found = connection.execute(text("SELECT id FROM jobs WHERE labels ->> 'race' = :label"), {"label": label})
        assert {str(row.id) for row in found} == ids
    assert len(ids) == 100


def test_a_key_that_is_just_being_written_is_409(api: Api, engine: Engine) -> None:
    key = uuid.uuid4().hex
    with engine.connect() as writer:
        job_id = api.create()["id"]
        writer.execute(
            text(
                "INSERT INTO idempotency_keys (owner, key, body_hash, job_id, answer, created_at, expires_at)"
                " VALUES ('default', :key, 'x', :job, '{}', now(), now() + interval '1 hour')"
            ),
            {"key": key, "job": job_id},
        )
        while (busy := _keyed(api, key)).status_code == 503:  # too busy itself to say it in time
            assert busy.json()["code"] == "unavailable"
        writer.rollback()
    assert (busy.status_code, busy.json()["code"]) == (409, "idempotency_key_in_use")
    assert int(busy.headers["retry-after"]) >= 1
    assert _keyed(api, key).status_code == 202


def test_an_expired_key_makes_a_new_job(tmp_path: Path, database_url: str, redis_url: str, engine: Engine) -> None:
    with Api(tmp_path, database_url, redis_url) as api:
        key = uuid.uuid4().hex
        first = _keyed(api, key)
        with engine.begin() as connection:
            connection.execute(
                text("UPDATE idempotency_keys SET expires_at = now() - interval '1 s' WHERE key = :key"), {"key": key}
            )
        second = _keyed(api, key, width=512)
        assert second.status_code == 202
        assert second.json()["id"] != first.json()["id"]


def test_a_full_queue_is_429_but_a_replay_still_works(
    tmp_path: Path, postgres_url: str, database_template: str, redis_url: str
) -> None:
    with (
        postgres.fresh_database(postgres_url, database_template) as url,
        Api(tmp_path, url, redis_url, DF_MAX_QUEUED="3") as api,
    ):
        first = _keyed(api, "k")
        api.create()
        barrier = threading.Barrier(6)

        def post(_: int) -> int:
            with httpx.Client(base_url=api.url, timeout=20) as client:
                for _ in range(3):  # so that nobody has to wait for a connection to the database
                    barrier.wait()
                    client.get("/v1/jobs")
                barrier.wait()
                return client.post("/v1/jobs", json={"prompt": "x"}).status_code

        with ThreadPoolExecutor(6) as pool:
            assert sorted(pool.map(post, range(6))) == [202] + [429] * 5
        full = api.client.post("/v1/jobs", json={"prompt": "x"})
        assert (full.status_code, full.json()["code"]) == (429, "queue_full")
        assert int(full.headers["retry-after"]) >= 1
        assert _keyed(api, "k").content == first.content
        assert _keyed(api, "new").status_code == 429
        api.client.post(first.json()["urls"]["cancel"])
        assert _keyed(api, "new").status_code == 202
