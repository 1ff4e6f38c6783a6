"""What an operator sees: metrics of what happened, and log lines that name the job."""

import pytest

from tests.e2e.system import System
from tests.servers.stack import until


def scrape(system: System) -> dict[str, float]:
    """Samples by name and labels, as in ``name{a="b"}``."""
    answer = system.client.http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    lines = [line.rpartition(" ") for line in answer.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def test_metrics_tell_what_happened(system):
    before = scrape(system)
    system.client.render(count=2)
    job = system.client.post(count=100, width=1024, height=1024)
    system.client.until_completed(job["id"], 1)
    system.client.cancel(job["id"])
    system.client.wait(job["id"], "canceled")

    least = {
        'dreamforge_jobs{status="succeeded"}': 1,
        'dreamforge_jobs{status="canceled"}': 1,
        'dreamforge_job_duration_seconds_count{status="succeeded"}': 1,
        'dreamforge_job_duration_seconds_count{status="canceled"}': 1,
        "dreamforge_job_queue_delay_seconds_count": 2,
        'dreamforge_item_duration_seconds_count{model_kind="sketch"}': 3,
        'dreamforge_items_total{status="succeeded"}': 3,
    }

    dead_letters = 'dreamforge_dlq_size{queue="events"}'

    def counted():
        now = scrape(system)  # the counts of Postgres are at most two seconds old, and may be missing for once
        grown = {name: now.get(name, 0) - before.get(name, 0) for name in least}
        whole = (
            now.get('dreamforge_dependency_up{name="database"}') == 1 and 'dreamforge_dlq_size{queue="events"}' in now
        )
        return whole and all(grown[name] >= count for name, count in least.items()) and now

    now = until(counted, 60, "the metrics")
    assert now["dreamforge_queue_depth"] >= 0
    assert now["dreamforge_queue_delay_seconds"] >= 0
    assert now[dead_letters] == 0
    assert now['dreamforge_dlq_size{queue="render"}'] == 0
    assert now['dreamforge_gpu_verdicts_total{clean="unknown"}'] >= 1


def test_subscribers_are_counted_while_they_listen(system):
    job = system.client.post(count=100, width=1024, height=1024)
    stream = system.client.stream(job["id"])
    next(stream)
    until(lambda: scrape(system).get("dreamforge_sse_subscribers") == 1, 60, "one subscriber")
    stream.close()
    until(lambda: scrape(system).get("dreamforge_sse_subscribers") == 0, 60, "no subscriber")
    system.client.cancel(job["id"])
    system.client.wait(job["id"], "canceled")


def test_errors_are_counted_by_class(system):
    job = system.client.post(count=8, width=1536, height=1536)
    system.client.until_completed(job["id"], 1)
    before = scrape(system).get('dreamforge_errors_total{code="provider_error"}', 0)
    system.process("child").kill()
    system.client.wait(job["id"])
    assert scrape(system)['dreamforge_errors_total{code="provider_error"}'] == before + 1


@pytest.mark.parametrize("process", ["api", "worker", "runner-0"])
def test_log_lines_name_the_job(system, process):
    answer = system.client.http.post(
        "/v1/jobs",
        json={"type": "generate", "prompt": "x", "width": 256, "height": 256, "steps": 1},
        headers={"X-Correlation-ID": "e2e-correlation"},
    )
    job = system.client.wait(answer.json()["id"])
    system.client.cancel(job["id"])
    named = until(
        lambda: [line for line in system.log_lines(process) if line.get("job_id") == job["id"]],
        5,
        "a line of the job",
    )
    assert any(line.get("step") == "generate" for line in named)
    assert {line.get("correlation_id") for line in named} == {answer.headers["x-correlation-id"]}
    if process == "runner-0":
        assert any("attempt" in line for line in named)
