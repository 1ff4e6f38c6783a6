"""What clients see of a job that retention has been at, and of dead jobs on ``/metrics``."""

import subprocess
import sys
from typing import Any

from sqlalchemy import Engine, text

from dreamforge.errors import ErrorCode
from dreamforge.events import Failure, Outcome
from dreamforge_api.worker.ingest import ingest_batch
from dreamforge_api.worker.retry import RetryPolicy
from tests.api_server import Api, parse_sse, poll
from tests.jobs import Runner, create
from tests.servers.stack import clean_environment


def old_job(engine: Engine, days: int) -> str:
    """A job that succeeded ``days`` ago, with two images."""
    job_id = create(engine, count=2)
    runner = Runner(job_id, f"run-{job_id.hex}")
    batch = runner.batch(
        *(runner.started(), runner.item(0), runner.progress(0, 9), runner.stored(0), runner.stored(1)),
        runner.finished(Outcome.SUCCEEDED, done=2),
    )
    ingest_batch(engine, batch, RetryPolicy())
    with engine.begin() as connection:
        query = text("UPDATE jobs SET finished_at = now() - make_interval(days => :days) WHERE id = :id")
        connection.execute(query, {"id": job_id, "days": days})
    return str(job_id)


def sweep(api: Api, database_url: str) -> None:
    environment = clean_environment(DF_DATABASE_URL=database_url, DF_STORE_ROOT=str(api.store_root))
    argv = [sys.executable, "-m", "dreamforge_api.worker.retention"]
    subprocess.run(argv, env=environment, cwd=api.folder, check=True, capture_output=True, timeout=60)


def frames(api: Api, job_id: str, **headers: str) -> list[dict[str, Any]]:
    answer = api.client.get(
        f"/v1/jobs/{job_id}/progress/stream", headers={k.replace("_", "-"): v for k, v in headers.items()}
    )
    assert answer.status_code == 200, answer.text
    return list(parse_sse(iter(answer.text.splitlines())))


def test_a_job_whose_images_and_events_went_still_answers_and_ends_its_streams(
    api: Api, engine: Engine, database_url: str
) -> None:
    job_id = old_job(engine, days=8)
    listed = api.client.get(f"/v1/jobs/{job_id}/artifacts").json()["items"]
    last = int(api.client.get(f"/v1/jobs/{job_id}/progress").json()["last_seq"])
    assert len(listed) == 2
    sweep(api, database_url)
    job = api.client.get(f"/v1/jobs/{job_id}")
    assert (job.status_code, job.json()["status"], job.json()["completed"]) == (200, "succeeded", 2)
    assert api.client.get(f"/v1/jobs/{job_id}/artifacts").json() == {"items": []}
    whole = frames(api, job_id)
    assert [frame["event"] for frame in whole if "event" in frame] == ["state", "state", "end"]
    rest = frames(api, job_id, Last_Event_ID="2")
    assert [frame["event"] for frame in rest if "event" in frame] == ["state", "end"]
    nothing = api.client.get(f"/v1/jobs/{job_id}/progress/stream", headers={"Last-Event-ID": str(last)})
    assert nothing.status_code == 204
    assert api.client.get(f"/v1/jobs/{job_id}/logs").status_code == 200
    assert api.client.get(f"/v1/jobs/{job_id}/progress").json()["status"] == "succeeded"


def test_a_job_that_went_is_unknown(api: Api, engine: Engine, database_url: str) -> None:
    job_id = old_job(engine, days=31)
    sweep(api, database_url)
    for path in ("", "/artifacts", "/progress", "/progress/stream", "/logs"):
        assert api.client.get(f"/v1/jobs/{job_id}{path}").status_code == 404, path


def test_dead_jobs_are_on_the_metrics(api: Api, engine: Engine) -> None:
    assert 'dreamforge_dlq_size{queue="jobs"} 0.0' in api.client.get("/metrics").text
    job_id = create(engine)
    for number in range(2):
        runner = Runner(job_id, f"run-{number}")
        failure = Failure(code=ErrorCode.HOST_OOM, message="137")
        batch = runner.batch(runner.started(), runner.finished(Outcome.FAILED, failure))
        ingest_batch(engine, batch, RetryPolicy(first_delay=0))
    poll(lambda: 'dreamforge_dlq_size{queue="jobs"} 1.0' in api.client.get("/metrics").text, "the dead job", 10)
