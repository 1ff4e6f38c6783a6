"""Prometheus metrics of the API and the worker: every name is defined here, once.

Labels hold words from closed lists only (states, error codes, route templates), never what a user wrote.
Where ``PROMETHEUS_MULTIPROC_DIR`` is set, the processes of one machine share the counts through files in
that folder and any of them shows the sum; else each process shows its own.
"""

import os
from pathlib import Path

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from dreamforge.errors import POISONOUS
from dreamforge.events import Verdict
from dreamforge.jobs import TERMINAL_STATES

# A third of the lines would say when a series began, which nobody asks.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the package leaves it untyped

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS_LONG = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200)
_SECONDS_SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)

JOB_DURATION = Histogram(
    "dreamforge_job_duration_seconds",
    "From a job's creation to its terminal state.",
    ["status"],
    buckets=_SECONDS_LONG,
)
JOB_QUEUE_DELAY = Histogram(
    "dreamforge_job_queue_delay_seconds",
    "From a job's creation to its first attempt.",
    buckets=_SECONDS_LONG,
)
ITEM_DURATION = Histogram(
    "dreamforge_item_duration_seconds",
    "From an item's start to its stored artifact.",
    ["model_kind"],
    buckets=_SECONDS_LONG,
)
ITEMS = Counter("dreamforge_items_total", "Items that ended, by how.", ["status"])
ERRORS = Counter("dreamforge_errors_total", "Failed jobs and attempts by error class.", ["code"])
GPU_MEMORY = Gauge(
    "dreamforge_gpu_memory_mib",
    "GPU memory around the latest measured attempt: start, peak, end.",
    ["phase"],
    multiprocess_mode="mostrecent",
)
GPU_VERDICTS = Counter(
    "dreamforge_gpu_verdicts_total",
    "Attempts by whether GPU memory came back: true, false, unknown.",
    ["clean"],
)
RUNNERS_LOST = Counter("dreamforge_runner_lost_total", "Runners that vanished while they had a job.")
REDISPATCHES = Counter(
    "dreamforge_redispatches_total",
    "Jobs that were handed out again, by why: failure, stop, lost_runner, lost_message.",
    ["reason"],
)
CANCELS = Counter(
    "dreamforge_cancels_total",
    "Canceled jobs by who ended them: runner (in time), control (none was on it, or it did not obey).",
    ["by"],
)
DEADLINES = Counter("dreamforge_deadlines_missed_total", "Jobs ended by a deadline: job, queue.", ["deadline"])
DEAD_JOBS = Counter("dreamforge_dead_jobs_total", "Jobs that became dead letters, by error class.", ["code"])
RETENTION_REMOVED = Counter(
    "dreamforge_retention_removed_total",
    "What retention removed: artifact, object, orphan, event, idempotency_key, job, model_event.",
    ["kind"],
)
RETENTION_DONE = Gauge(
    "dreamforge_retention_last_pass_timestamp_seconds",
    "When retention last got through everything; before that, when its worker began.",
    multiprocess_mode="mostrecent",
)
MODELS_NOT_INSTALLED = Gauge(
    "dreamforge_models_not_installed",
    "Enabled models whose files are missing or changed, and places of the models root that can't be read.",
    multiprocess_mode="mostrecent",
)
INGEST_BATCHES = Counter("dreamforge_ingest_batches_total", "Event batches by ingest's verdict.", ["verdict"])
ANNOUNCEMENTS = Counter(
    "dreamforge_announcements_total",
    "What the operator told of RenderJobs, by what became of it.",
    ["type", "reception"],
)
INGEST_EVENTS = Counter("dreamforge_ingest_events_total", "Runner events committed.")

HTTP_SECONDS = Histogram(
    "dreamforge_http_request_duration_seconds",
    "From a request's arrival to the start of its answer.",
    ["method", "route", "status"],
    buckets=_SECONDS_SHORT,
)
SSE_SUBSCRIBERS = Gauge("dreamforge_sse_subscribers", "Open event streams.", multiprocess_mode="livesum")
SSE_SUPERSEDED = Counter("dreamforge_sse_superseded_total", "Progress frames skipped for slow readers.")

# A series that is born with its first event shows no increase to Prometheus: these are alerted on.
for _state in TERMINAL_STATES:
    JOB_DURATION.labels(_state.value)
for _code in POISONOUS:
    DEAD_JOBS.labels(_code.value)
for _reason in ("failure", "stop", "lost_runner", "lost_message"):
    REDISPATCHES.labels(_reason)
for _by in ("runner", "control"):
    CANCELS.labels(_by)
for _deadline in ("job", "queue"):
    DEADLINES.labels(_deadline)
for _clean in ("true", "false", "unknown"):
    GPU_VERDICTS.labels(_clean)
for _verdict in ("rejected", *Verdict):
    INGEST_BATCHES.labels(_verdict)


def render(folder: Path | None, *collectors: Collector) -> bytes:
    """The exposition text: this process's metrics (all processes' with ``folder``), then ``collectors``."""
    extra = CollectorRegistry()
    for collector in collectors:
        extra.register(collector)
    if folder is None:
        return generate_latest(REGISTRY) + generate_latest(extra)
    shared = CollectorRegistry()
    MultiProcessCollector(shared, path=str(folder))  # type: ignore[no-untyped-call]  # registers itself
    return generate_latest(shared) + generate_latest(extra)


def forget_process(folder: Path | None, pid: int) -> None:
    """Take a finished process's live gauges out of the shared files."""
    if folder is not None:
        mark_process_dead(pid, path=str(folder))  # type: ignore[no-untyped-call]


def forget_killed(folder: Path | None) -> None:
    """The same for processes that were killed and could not do it themselves."""
    for path in folder.glob("gauge_live*_*.db") if folder is not None else ():
        pid = int(path.stem.rpartition("_")[2])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            forget_process(folder, pid)
        except PermissionError:
            continue  # somebody else's, and alive
