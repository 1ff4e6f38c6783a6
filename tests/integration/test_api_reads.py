"""Logs, progress, artifacts, links, health, metrics and documents over real HTTP."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit
from uuid import UUID

import httpx
import pytest
from sqlalchemy import Engine, text
from uuid_utils.compat import uuid7

from dreamforge.db import artifacts
from dreamforge.storage.filesystem import FilesystemStore
from tests.api_server import SIGNING_KEY, Api, Recorder, log, poll, progress

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 2000
SHA = hashlib.sha256(PNG).hexdigest()


@pytest.fixture(scope="module")
def stored(api: Api, engine: Engine) -> dict[str, Any]:
    """A job with one image in the store."""
    job = api.create(count=3)
    key = f"dreamforge/default/jobs/{job['id']}/generate/20260102T030405Z_1_64x64_7.png"
    FilesystemStore(api.store_root, SIGNING_KEY).put(key, PNG, content_type="image/png", sha256=SHA)
    row = {
        "id": str(uuid7()), "item_index": 1, "format": "png", "width": 64, "height": 64, "seed": 2**32 - 1,
        "size_bytes": len(PNG), "sha256": SHA, "key": key, "metadata": {"prompt": "a lighthouse"},
    }  # fmt: skip
    with engine.begin() as connection:
        connection.execute(
            artifacts.RECORD, {"job_id": UUID(job["id"]), "step": "generate", "attempt": 1, "rows": json.dumps([row])}
        )
        connection.execute(
            text(
                "INSERT INTO items (job_id, step, item_index, status, progress, seed, attempt, started_at,"
                " finished_at) VALUES (:id, 'generate', 1, 'succeeded', 1, 4294967295, 1, now() - interval '3 s',"
                " now())"
            ),
            {"id": job["id"]},
        )
    return job


def link_of(api: Api, job: dict[str, Any]) -> str:
    return str(api.client.get(job["urls"]["artifacts"]).json()["items"][0]["url"])


def test_the_listing_has_every_field_and_a_link_that_reads_the_image(api: Api, stored: dict[str, Any]) -> None:
    item = api.client.get(stored["urls"]["artifacts"]).json()["items"][0]
    assert set(item) == {
        "id", "step", "item_index", "format", "width", "height", "seed", "size_bytes", "sha256", "url",
        "url_expires_at", "metadata",
    }  # fmt: skip
    assert (item["item_index"], item["seed"], item["sha256"]) == (1, 2**32 - 1, SHA)
    assert item["url"].startswith(f"{api.url}/v1/objects/")
    image = httpx.get(item["url"])
    assert (image.status_code, image.content) == (200, PNG)
    assert image.headers["content-type"] == "image/png"
    assert image.headers["x-content-type-options"] == "nosniff"
    assert image.headers["cache-control"] == "private, no-store"
    assert image.headers["etag"] == f'"{SHA}"'
    assert image.headers["content-disposition"].startswith("attachment")
    cached = httpx.get(item["url"], headers={"If-None-Match": image.headers["etag"]})
    assert (cached.status_code, cached.content) == (304, b"")


def test_a_link_that_was_changed_in_any_way_is_403(api: Api, stored: dict[str, Any]) -> None:
    url = link_of(api, stored)
    parts = urlsplit(url)
    query = dict(httpx.QueryParams(parts.query))
    changed = [
        query | {"expires": str(int(query["expires"]) + 1)},
        query | {"signature": "0" * 64},
        query | {"signature": query["signature"].upper()},
        query | {"filename": "other.png"},
        query | {"content_type": "text/html"},
        query | {"extra": "1"},
        {name: value for name, value in query.items() if name != "signature"},
        {},
    ]
    base = f"{parts.scheme}://{parts.netloc}"
    for given in changed:
        answer = httpx.get(f"{base}{parts.path}?{urlencode(given)}")
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), given
        assert query["signature"] not in answer.text
    for path in (
        parts.path.replace("_1_64", "_2_64"),
        "/v1/objects/../../etc/passwd",
        "/v1/objects/%2e%2e/x",
        "/v1/objects/",
    ):
        assert httpx.get(f"{base}{path}?{parts.query}").status_code in (403, 404), path
    assert httpx.get(url + "&expires=1").status_code == 403


def test_links_are_for_get_only(api: Api, stored: dict[str, Any]) -> None:
    url = link_of(api, stored)
    for method in ("HEAD", "PUT", "POST", "DELETE"):
        answer = httpx.request(method, url)
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET"), method


def test_an_expired_link_is_403(tmp_path: Path, database_url: str, redis_url: str, stored: dict[str, Any]) -> None:
    settings = {"DF_PRESIGN_TTL_SECONDS": "1", "DF_API_PUBLIC_URL": "https://forge.example/api"}
    with Api(tmp_path, database_url, redis_url, **settings) as api:
        url = link_of(api, stored)
        assert url.startswith("https://forge.example/api/v1/objects/")
        parts = urlsplit(url)
        here = f"{api.url}{parts.path.removeprefix('/api')}?{parts.query}"
        poll(lambda: httpx.get(here).status_code == 403, "the link to expire")


def test_a_signed_link_to_a_missing_image_is_404(api: Api, stored: dict[str, Any]) -> None:
    link = FilesystemStore(api.store_root, SIGNING_KEY).sign_get(
        "dreamforge/default/gone.png", ttl_seconds=60, filename="gone.png", content_type="image/png"
    )
    assert api.client.get(link.url).status_code == 404


def test_no_signature_reaches_the_log_or_the_metrics(api: Api, stored: dict[str, Any]) -> None:
    url = link_of(api, stored)
    httpx.get(url)
    signature = httpx.QueryParams(urlsplit(url).query)["signature"]
    assert signature not in api.log.read_text()
    assert signature not in api.client.get("/metrics").text
    assert stored["id"] not in api.client.get("/metrics").text


def test_progress_shows_every_item_of_the_batch(api: Api, stored: dict[str, Any]) -> None:
    shown = api.client.get(f"/v1/jobs/{stored['id']}/progress").json()
    assert set(shown) == {"status", "progress", "steps", "items", "queue_position", "eta_seconds", "last_seq"}
    assert shown["items"] == [
        {"item_index": 0, "status": "pending", "progress": 0.0, "seed": None, "attempt": None},
        {"item_index": 1, "status": "succeeded", "progress": 1.0, "seed": 2**32 - 1, "attempt": 1},
        {"item_index": 2, "status": "pending", "progress": 0.0, "seed": None, "attempt": None},
    ]
    assert shown["steps"][0]["name"] == "generate"
    assert shown["queue_position"] >= 1
    # One item took three seconds, so three items are thought to take nine.
    assert poll(lambda: api.client.get(f"/v1/jobs/{stored['id']}").json()["eta_seconds"], "an estimate") == 9.0


def _lines(api: Api, job: dict[str, Any], query: str = "") -> list[dict[str, Any]]:
    answer = api.client.get(job["urls"]["logs"] + query)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


def test_the_log_is_the_newest_events_oldest_first(api: Api, engine: Engine) -> None:
    job = api.create()
    assert _lines(api, job) == []
    recorder = Recorder(engine)
    recorder.run(job["id"])
    recorder.append(job["id"], progress(0, 0.5), log("third"), log("fourth"))
    lines = _lines(api, job)
    assert [line["seq"] for line in lines] == [1, 2, 3, 4]
    assert set(lines[0]) == {"seq", "ts", "level", "code", "message", "step", "item_index", "attempt"}
    assert (lines[1]["item_index"], lines[2]["message"]) == (0, "third")
    assert [line["seq"] for line in _lines(api, job, "?tail=2")] == [3, 4]
    assert [line["seq"] for line in _lines(api, job, "?tail=10000&since_ts=2000-01-01T00:00:00Z&bogus=1")] == [
        1,
        2,
        3,
        4,
    ]
    assert _lines(api, job, "?since_ts=2999-01-01T00:00:00%2B02:00") == []


def test_health_readiness_and_metrics(api: Api) -> None:
    assert api.client.get("/healthz").json() == {"status": "ok"}
    ready = poll(lambda: (asked := api.client.get("/readyz")).status_code == 200 and asked, "readiness")
    assert {name for name, check in ready.json()["checks"].items() if check["ok"]} == {
        "database", "schema", "redis", "store",
    }  # fmt: skip
    exposition = api.client.get("/metrics")
    assert exposition.headers["content-type"].startswith("text/plain; version=0.0.4")
    for name in (
        'dreamforge_jobs{status="queued"}', "dreamforge_queue_depth", "dreamforge_queue_delay_seconds",
        'dreamforge_dlq_size{queue="events"}', "dreamforge_sse_subscribers",
        'dreamforge_dependency_up{name="database"} 1',
        'dreamforge_http_request_duration_seconds_count{method="POST",route="/v1/jobs",status="202"}',
    ):  # fmt: skip
        assert name in exposition.text, name


def test_metrics_of_several_processes_add_up(tmp_path: Path, database_url: str, redis_url: str) -> None:
    shared = tmp_path / "metrics"
    shared.mkdir()
    settings = {"PROMETHEUS_MULTIPROC_DIR": str(shared)}
    with (
        Api(tmp_path, database_url, redis_url, **settings) as one,
        Api(tmp_path, database_url, redis_url, **settings) as two,
    ):
        one.create()
        two.create()
        pattern = (
            r'dreamforge_http_request_duration_seconds_count\{method="POST",route="/v1/jobs",status="202"\} 2\.0'
        )
        assert re.search(pattern, one.client.get("/metrics").text)


def test_the_document_and_its_pages_need_nothing_from_elsewhere(api: Api) -> None:
    document = api.client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    for path in ("/docs", "/redoc"):
        page = api.client.get(path)
        assert page.status_code == 200
        assert "script" not in page.headers["content-security-policy"]
        assert not re.search(r"<script|<link|src=|@import|url\(", page.text)
        assert not re.search(r'href="(?!#|/openapi\.json)', page.text)
        for address in document["paths"]:
            assert address in page.text


def test_docs_can_be_switched_off(tmp_path: Path, database_url: str, redis_url: str) -> None:
    with Api(tmp_path, database_url, redis_url, DF_DOCS="false") as api:
        assert api.client.get("/docs").status_code == 404
        assert api.client.get("/openapi.json").status_code == 200
