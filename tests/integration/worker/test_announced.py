"""What the operator tells of RenderJobs, over real Redis into real Postgres: registered once, ended by the truth."""

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from prometheus_client import REGISTRY
from redis import Redis
from redis.client import PubSub
from rq import Queue
from rq.registry import FailedJobRegistry
from rq.serializers import JSONSerializer
from sqlalchemy import Engine, text

from dreamforge import keys
from dreamforge.announcements import (
    Answer,
    EndedAs,
    JobCancelRequested,
    JobDeleted,
    JobEnded,
    JobRegistered,
    JobWaiting,
    Progress,
    Reception,
)
from dreamforge.errors import ErrorCode
from dreamforge.events import EventBatch, Failure, Outcome, Verdict
from dreamforge.keys import ArtifactName, manifest_key
from dreamforge.models import BackendMode
from dreamforge.renderjob.names import job_id_of, resource_name
from dreamforge.storage.filesystem import FilesystemStore
from dreamforge.transport import names
from dreamforge.transport.redis import RedisAnnouncements, RedisEventSink
from dreamforge_api.worker import tasks
from dreamforge_api.worker.announced import ModelRule
from dreamforge_api.worker.listener import Listener
from dreamforge_api.worker.queue import IngestWorker
from dreamforge_api.worker.registry_sync import RegistrySync
from dreamforge_api.worker.retry import RetryPolicy
from dreamforge_api.worker.signals import Signals
from tests.jobs import Runner, create, register_sketch, rows
from tests.models_on_disk import install

CREATED = datetime.now(UTC).replace(microsecond=0)
PROMPT = "a lighthouse nobody may read about"
GIVEN: dict[str, Any] = {"prompt": PROMPT, "width": 256, "height": 256}


class Cluster:
    """An operator's mouth at one end of the real queue, the real worker at the other."""

    def __init__(self, engine: Engine, url: str, store: FilesystemStore) -> None:
        self.engine = engine
        self.store = store
        self.redis = Redis.from_url(url)
        self.sink = RedisAnnouncements(url)
        self.events = RedisEventSink(url)
        self.queue = Queue(names.EVENTS_QUEUE, connection=self.redis, serializer=JSONSerializer)
        with engine.begin() as connection:
            register_sketch(connection)
        policy, signals, stop = RetryPolicy(), Signals(self.redis), threading.Event()
        listener = Listener(engine, store, signals, ModelRule(BackendMode.AUTO), policy, stop)
        tasks.install(tasks.Ingestor(engine, signals, policy, stop, timedelta(seconds=60)), listener)

    def work(self) -> None:
        worker = IngestWorker([self.queue], connection=self.redis, serializer=JSONSerializer)
        worker.work(burst=True, logging_level="CRITICAL")

    def say(self, *told: Any) -> Answer:
        """Announce, let ingest work, and give the answer to the last one."""
        for one in told:
            self.sink.announce(one)
        self.work()
        return self.sink.answers([(told[-1].uid, told[-1].type)])[told[-1].uid, told[-1].type]

    def run(self, *batches: EventBatch) -> None:
        for batch in batches:
            self.events.send(batch)
        self.work()

    def job(self, job_id: UUID) -> dict[str, Any]:
        return rows(self.engine, "SELECT * FROM jobs WHERE id = :id", id=job_id)[0]

    def words(self, job_id: UUID) -> list[tuple[str, str]]:
        found = rows(self.engine, "SELECT code, message FROM events WHERE job_id = :id ORDER BY seq", id=job_id)
        return [(row["code"], row["message"]) for row in found]

    def close(self) -> None:
        self.sink.close()
        self.events.close()
        self.redis.close()


@pytest.fixture
def cluster(engine: Engine, redis_db: str, tmp_path: Path) -> Iterator[Cluster]:
    opened = Cluster(engine, redis_db, FilesystemStore(tmp_path / "objects", None))
    yield opened
    opened.close()


class Object:
    """A RenderJob that a person applied."""

    def __init__(self, *, job_id: UUID | None = None, name: str = "mine") -> None:
        self.uid = str(uuid4())
        self.name = name
        self.job_id = job_id or job_id_of(self.uid, CREATED)

    def _of(self, **fields: Any) -> dict[str, Any]:
        about = {"job_id": self.job_id, "namespace": "team-a", "name": self.name, "uid": self.uid}
        return {**about, "ts": datetime.now(UTC), **fields}

    def registered(self, params: dict[str, Any] | None = GIVEN, **fields: Any) -> JobRegistered:
        rest = {"created_at": CREATED, "deadline_at": CREATED + timedelta(hours=1), "correlation_id": "corr"}
        told = {"provider": "local-sdxl-epicrealism", "params": params, **rest, **fields}
        return JobRegistered(**self._of(**told))

    def waiting(self, reason: str, message: str) -> JobWaiting:
        return JobWaiting(**self._of(reason=reason, message=message))

    def canceling(self) -> JobCancelRequested:
        return JobCancelRequested(**self._of())

    def deleted(self) -> JobDeleted:
        return JobDeleted(**self._of())

    def ended(self, outcome: EndedAs, failure: Failure | None = None) -> JobEnded:
        return JobEnded(**self._of(outcome=outcome, failure=failure))


def test_a_renderjob_becomes_a_job_once_that_nobody_submits(cluster: Cluster) -> None:
    mine = Object()
    told = mine.registered(labels={"team": "a"}, params={"prompt": PROMPT, "count": 3, "seed": 5})
    assert cluster.say(told).reception is Reception.RECORDED
    assert cluster.say(told).reception is Reception.RECORDED
    job = cluster.job(mine.job_id)
    assert (job["status"], job["model_id"], job["count"], job["labels"]) == ("queued", "sketch", 3, {"team": "a"})
    assert (job["executor_kind"], job["executor_ref"]) == ("kubernetes", "team-a/mine")
    assert job["dispatched_at"] is not None
    assert job["created_at"] == CREATED
    assert job["params"]["seed"] is None
    assert [warning.split()[0] for warning in job["warnings"]] == ["Rendered", "seed"]
    assert len(rows(cluster.engine, "SELECT 1 FROM steps WHERE job_id = :id", id=mine.job_id)) == 1


def test_a_renderjob_may_name_an_installed_model_by_id_or_slug(cluster: Cluster, tmp_path: Path) -> None:
    model = install(tmp_path / "models")
    sync = RegistrySync(cluster.engine, tmp_path / "models", None)
    sync.sweep()
    try:
        for asked in (model.id, model.slug):
            mine = Object(name=asked.replace("@", "-"))
            assert cluster.say(mine.registered(model_id=asked)).reception is Reception.RECORDED
            assert cluster.job(mine.job_id)["model_id"] == model.id
        shutil.rmtree(tmp_path / "models")
        sync.sweep()
        refused = cluster.say(Object(name="gone").registered(model_id=model.id))
        assert refused.reception is Reception.UNKNOWN_MODEL
        assert "models root" in refused.message
    finally:
        with cluster.engine.begin() as connection:
            connection.execute(text("DELETE FROM models WHERE id = :id"), {"id": model.id})


def test_prompts_are_in_no_description_on_the_queue(cluster: Cluster) -> None:
    cluster.sink.announce(Object().registered())
    (queued,) = cluster.queue.jobs
    assert PROMPT not in str(queued.description)
    cluster.work()


@pytest.mark.parametrize(
    ("params", "fields", "reception"),
    [
        ({"prompt": "x", "width": 7}, {}, Reception.INVALID),
        ({"prompt": f"{PROMPT}\x07"}, {}, Reception.INVALID),
        ({"prompt": "x", "sampler": "y"}, {}, Reception.INVALID),
        ({"prompt": "x"}, {"labels": {"": "x"}}, Reception.INVALID),
        (None, {}, Reception.INVALID),
        ({"prompt": "x"}, {"model_id": "no-such"}, Reception.UNKNOWN_MODEL),
    ],
)
def test_what_breaks_a_rule_is_answered_without_what_stood_there(
    cluster: Cluster, params: dict[str, Any] | None, fields: dict[str, Any], reception: Reception
) -> None:
    mine = Object()
    answer = cluster.say(mine.registered(params, **fields))
    assert (answer.reception, answer.reception.refused) == (reception, True)
    assert answer.message
    assert PROMPT not in answer.message
    found = rows(cluster.engine, "SELECT status, error_code FROM jobs WHERE id = :id", id=mine.job_id)
    failed = [{"status": "failed", "error_code": "unknown_model"}]
    assert found == (failed if reception is Reception.UNKNOWN_MODEL else [])


def test_two_objects_of_one_job_id_are_one_job(cluster: Cluster) -> None:
    mine = Object()
    cluster.say(mine.registered())
    thief = Object(job_id=mine.job_id, name="thief")
    assert cluster.say(thief.registered()).reception is Reception.TAKEN
    assert cluster.say(thief.deleted()).reception is Reception.TAKEN
    assert cluster.job(mine.job_id)["status"] == "queued"


def test_a_job_of_the_api_keeps_its_row(cluster: Cluster) -> None:
    job_id = create(cluster.engine)
    before = cluster.job(job_id)
    own = Object(job_id=job_id, name=resource_name(job_id))
    assert cluster.say(own.registered(None)).reception is Reception.RECORDED
    assert cluster.job(job_id) == before
    assert cluster.say(Object(job_id=job_id, name="thief").registered()).reception is Reception.TAKEN
    assert cluster.say(own.deleted()).reception is Reception.RECORDED
    assert cluster.job(job_id)["status"] == "canceled"


def test_a_deleted_renderjob_is_a_canceled_job_and_nothing_follows(cluster: Cluster) -> None:
    mine = Object()
    cluster.say(mine.registered(), mine.deleted())
    assert cluster.job(mine.job_id)["status"] == "canceled"
    for late in (mine.registered(), mine.deleted(), mine.ended(EndedAs.SUCCEEDED), mine.canceling()):
        assert cluster.say(late).reception is Reception.OVER
    assert [code for code, _ in cluster.words(mine.job_id)] == ["renderjob.deleted", "job.canceled"]


def test_unknown_jobs_are_told_of(cluster: Cluster) -> None:
    mine = Object()
    for told in (mine.deleted(), mine.ended(EndedAs.CANCELED), mine.waiting("NoGPU", "x")):
        assert cluster.say(told).reception is Reception.UNKNOWN_JOB


def test_each_new_reason_for_waiting_is_said_once(cluster: Cluster) -> None:
    mine = Object()
    cluster.say(mine.registered())
    pull = mine.waiting("ImagePullFailed", "no such image")
    gpu = mine.waiting("NoGPU", "0/1 nodes")
    cluster.say(pull, pull, gpu, gpu, pull)
    said = [("ImagePullFailed", "no such image"), ("NoGPU", "0/1 nodes"), ("ImagePullFailed", "no such image")]
    assert cluster.words(mine.job_id) == said


def test_the_clusters_verdict_ends_what_no_runner_could(cluster: Cluster) -> None:
    mine = Object()
    failure = Failure(code=ErrorCode.RUNNER_LOST, message="the image can't be pulled")
    cluster.say(mine.registered(), mine.ended(EndedAs.FAILED, failure))
    job = cluster.job(mine.job_id)
    assert (job["status"], job["error_code"], job["error_message"]) == ("failed", "runner_lost", failure.message)


def test_jobs_that_a_cluster_ends_are_counted_as_all_others_are(cluster: Cluster) -> None:
    def seen() -> dict[str, float]:
        took = "dreamforge_job_duration_seconds_count"
        found = {state: counted(took, status=state) for state in ("succeeded", "failed", "canceled")}
        dead = counted("dreamforge_dead_jobs_total", code="runner_lost")
        return {**found, "dead": dead, "forced": counted("dreamforge_cancels_total", by="control")}

    before = seen()
    lost, deleted, unknown, found, empty = (Object(name=name) for name in ("lost", "deleted", "unknown", "f", "e"))
    failure = Failure(code=ErrorCode.RUNNER_LOST, message="killed twice")
    cluster.say(lost.registered(), lost.ended(EndedAs.FAILED, failure), lost.ended(EndedAs.FAILED, failure))
    cluster.say(deleted.registered(), deleted.deleted(), deleted.ended(EndedAs.CANCELED))
    cluster.say(unknown.registered(model_id="no-such"))
    cluster.say(empty.registered(), empty.ended(EndedAs.SUCCEEDED))
    cluster.say(found.registered({"prompt": PROMPT, "count": 1}))
    put_images(cluster, found.job_id, 1)
    cluster.say(found.ended(EndedAs.SUCCEEDED), found.ended(EndedAs.SUCCEEDED))
    after = seen()
    assert {name: after[name] - before[name] for name in before} == {
        "succeeded": 1, "failed": 3, "canceled": 1, "dead": 1, "forced": 0,
    }  # fmt: skip


def counted(metric: str, **labels: str) -> float:
    """A counter of this process as it stands."""
    return REGISTRY.get_sample_value(metric, labels) or 0.0


def test_a_cancel_that_was_asked_for_wins_over_a_failure(cluster: Cluster) -> None:
    mine = Object()
    failure = Failure(code=ErrorCode.RUNNER_LOST, message="killed")
    cluster.say(mine.registered(), mine.canceling())
    assert cluster.job(mine.job_id)["cancel_requested_at"] is not None
    cluster.say(mine.ended(EndedAs.FAILED, failure))
    assert cluster.job(mine.job_id)["status"] == "canceled"


def test_a_failed_attempt_is_the_clusters_to_retry_until_it_gives_up(cluster: Cluster) -> None:
    mine = Object()
    cluster.say(mine.registered())
    failure = Failure(code=ErrorCode.STORAGE_ERROR, message="the store is away")
    for number in range(5):
        pod = Runner(mine.job_id, f"pod-{mine.uid}-{number}")
        cluster.run(pod.batch(pod.started(), pod.finished(Outcome.FAILED, failure)))
    job = cluster.job(mine.job_id)
    assert (job["status"], job["failures"], job["attempt"]) == ("running", 5, 5)
    assert job["dispatched_at"] is not None
    cluster.say(mine.ended(EndedAs.FAILED, failure))
    assert cluster.job(mine.job_id)["status"] == "failed"


def test_a_runner_that_is_heard_before_its_job_keeps_its_events(cluster: Cluster) -> None:
    mine = Object()
    pod = Runner(mine.job_id, f"pod-{mine.uid}")
    first = pod.batch(pod.started(), pod.stored(0), pod.finished(Outcome.SUCCEEDED, done=1))
    cluster.run(first)
    early = cluster.events.ack(pod.attempt_id)
    assert early is not None
    assert (early.verdict, early.seq) == (Verdict.GAP, 0)
    cluster.say(mine.registered())
    cluster.run(first)
    assert cluster.job(mine.job_id)["status"] == "succeeded"
    assert cluster.say(mine.ended(EndedAs.SUCCEEDED)).reception is Reception.OVER


def test_progress_is_published_for_the_status(cluster: Cluster) -> None:
    mine = Object()
    heard: PubSub = cluster.redis.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
    heard.subscribe(names.PROGRESS_CHANNEL)
    cluster.say(mine.registered({"prompt": PROMPT, "count": 2}))
    pod = Runner(mine.job_id, f"pod-{mine.uid}")
    cluster.run(pod.batch(pod.started(), pod.stored(0)))
    messages = [message["data"] for _ in range(9) if (message := heard.get_message(timeout=0.1))]
    told = Progress.model_validate_json(messages[-1])
    assert (told.job_id, told.items_done, told.items_total, told.attempt) == (mine.job_id, 1, 2, 1)
    heard.close()


def _shard(runner: Runner, index: int, *events: Any) -> EventBatch:
    return runner.batch(*events).model_copy(update={"shard": index, "shards": 2})


def test_a_sharded_job_succeeds_when_its_last_shard_has(cluster: Cluster) -> None:
    mine = Object()
    cluster.say(mine.registered({"prompt": PROMPT, "count": 3}))
    even, odd = Runner(mine.job_id, f"pod-{mine.uid}-0"), Runner(mine.job_id, f"pod-{mine.uid}-1")
    cluster.run(_shard(odd, 1, odd.started()), _shard(even, 0, even.started(), even.stored(0), even.stored(2)))
    cluster.run(_shard(even, 0, even.finished(Outcome.SUCCEEDED, done=2)))
    assert cluster.job(mine.job_id)["status"] == "running"
    cluster.run(_shard(odd, 1, odd.stored(1)))
    assert cluster.job(mine.job_id)["status"] == "running", "its last words are still to come"
    cluster.run(_shard(odd, 1, odd.finished(Outcome.SUCCEEDED, done=1)))
    assert cluster.job(mine.job_id)["status"] == "succeeded"
    numbers = rows(cluster.engine, "SELECT shard, number FROM attempts WHERE job_id = :id", id=mine.job_id)
    assert sorted((row["shard"], row["number"]) for row in numbers) == [(0, 1), (1, 1)]


def test_a_shard_that_reports_success_without_its_images_fails_the_job(cluster: Cluster) -> None:
    mine = Object()
    cluster.say(mine.registered({"prompt": PROMPT, "count": 3}))
    even = Runner(mine.job_id, f"pod-{mine.uid}-0")
    cluster.run(_shard(even, 0, even.started(), even.stored(0), even.finished(Outcome.SUCCEEDED, done=1)))
    job = cluster.job(mine.job_id)
    assert (job["status"], job["error_code"]) == ("failed", "internal")


def put_images(cluster: Cluster, job_id: UUID, count: int, *, named: int | None = None) -> None:
    """What a runner leaves in the store, its manifest last."""
    items = []
    for index in range(count):
        data = f"image {index}".encode()
        digest = hashlib.sha256(data).hexdigest()
        key = keys.artifact_key(job_id, "generate", CREATED, ArtifactName(index, 256, 256, 7, "png"))
        beside = {"backend": "sketch", "source-type": "algorithmicMedia"}
        cluster.store.put(key, data, content_type="image/png", sha256=digest, metadata=beside)
        about = {"item_index": index, "key": key, "sha256": digest, "size_bytes": len(data)}
        items.append({**about, "seed": 7, "width": 256, "height": 256})
    text = json.dumps({"schema_version": 1, "job_id": str(job_id), "items": items[:named]}).encode()
    digest = hashlib.sha256(text).hexdigest()
    cluster.store.put(manifest_key(job_id, "generate"), text, content_type="application/json", sha256=digest)


def test_images_that_no_event_told_of_are_found_in_the_store(cluster: Cluster) -> None:
    mine = Object()
    cluster.say(mine.registered({"prompt": PROMPT, "count": 2}))
    pod = Runner(mine.job_id, f"pod-{mine.uid}")
    cluster.run(pod.batch(pod.started(), pod.stored(0)))
    put_images(cluster, mine.job_id, 2)
    assert cluster.say(mine.ended(EndedAs.SUCCEEDED)).reception is Reception.RECORDED
    job = cluster.job(mine.job_id)
    assert (job["status"], job["completed"], job["attempt"]) == ("succeeded", 2, 2)
    found = rows(
        cluster.engine, "SELECT item_index, seed, metadata FROM artifacts WHERE job_id = :id", id=mine.job_id
    )
    assert {row["item_index"] for row in found} == {0, 1}
    assert found[-1]["metadata"]["prompt"] == PROMPT
    assert "images.recovered" in dict(cluster.words(mine.job_id))


@pytest.mark.parametrize("named", [None, 1])
def test_a_success_without_its_images_is_a_failure(cluster: Cluster, named: int | None) -> None:
    mine = Object()
    cluster.say(mine.registered({"prompt": PROMPT, "count": 2}))
    if named:
        put_images(cluster, mine.job_id, 2, named=named)
    cluster.say(mine.ended(EndedAs.SUCCEEDED))
    job = cluster.job(mine.job_id)
    assert (job["status"], job["error_code"]) == ("failed", "storage_error")
    assert "manifest" in job["error_message"]


def test_what_is_no_announcement_lies_with_the_dead_letters(cluster: Cluster) -> None:
    mine = Object()
    cluster.queue.enqueue_call(names.ANNOUNCE_FUNCTION, args=('{"type": "job.exploded"}',), result_ttl=0)
    assert cluster.say(mine.registered()).reception is Reception.RECORDED
    failed = FailedJobRegistry(queue=cluster.queue)
    assert failed.count == 1
