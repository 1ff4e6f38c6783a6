"""Retention on a real Postgres and a real store: what goes, what stays, and what a crash in between leaves."""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from dreamforge.errors import ErrorCode
from dreamforge.events import Failure, Outcome, RunnerEvent
from dreamforge.keys import manifest_key
from dreamforge.storage.base import StorageUnavailable
from dreamforge.storage.filesystem import FilesystemStore
from dreamforge_api.worker.ages import Policy
from dreamforge_api.worker.ingest import ingest_batch, new_id
from dreamforge_api.worker.retention import Retention
from dreamforge_api.worker.retry import RetryPolicy
from tests.jobs import STEP, Runner, create, rows
from tests.servers.stack import clean_environment, until
from tests.servers.worker import worker

POLICY = Policy(objects_hours=24, events_hours=168, jobs_hours=720, orphan_grace_hours=24)
DAY = 24.0


class Kept:
    """A database and a store, with jobs of any age."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.folder = folder
        self.store = FilesystemStore(folder)

    def put(self, key: str, age_hours: float = 0) -> str:
        data = b"image"
        self.store.put(key, data, content_type="image/png", sha256=hashlib.sha256(data).hexdigest())
        written = time.time() - age_hours * 3600
        os.utime(self.folder / key, (written, written))
        return key

    def finished(self, age_hours: float, count: int = 2) -> UUID:
        """A job that succeeded, its images and its manifest."""
        job_id = create(self.engine, count=count)
        runner = Runner(job_id, f"run-{job_id.hex}")
        stored: list[RunnerEvent] = [runner.started(), *(runner.stored(index) for index in range(count))]
        batch = runner.batch(*stored, runner.progress(0, 1), runner.finished(Outcome.SUCCEEDED, done=count))
        ingest_batch(self.engine, batch, RetryPolicy())
        for row in rows(self.engine, "SELECT key FROM artifacts WHERE job_id = :id", id=job_id):
            self.put(row["key"], age_hours)
        self.put(manifest_key(job_id, STEP), age_hours)
        self.age(job_id, age_hours)
        return job_id

    def told_of_models(self, *ages_hours: float) -> None:
        """Something happened to models, and nothing else ever did."""
        query = text("""INSERT INTO model_events (at, model_id, kind)
                        VALUES (now() - make_interval(secs => :s), 'gone@1', 'verified')""")
        with self.engine.begin() as connection:
            connection.exec_driver_sql("TRUNCATE model_events")
            for hours in ages_hours:
                connection.execute(query, {"s": hours * 3600})

    def age(self, job_id: UUID, hours: float) -> None:
        with self.engine.begin() as connection:
            query = text("UPDATE jobs SET finished_at = now() - make_interval(secs => :s) WHERE id = :id")
            connection.execute(query, {"id": job_id, "s": hours * 3600})

    def sweep(self, policy: Policy = POLICY) -> dict[str, int]:
        removed = Retention(self.engine, self.store, policy).sweep()
        assert removed is not None
        return dict(removed)

    def left(self, table: str, job_id: UUID) -> int:
        column = "id" if table == "jobs" else "job_id"
        found = rows(self.engine, f"SELECT count(*) AS n FROM {table} WHERE {column} = :id", id=job_id)
        return int(found[0]["n"])

    def objects(self, job_id: UUID) -> int:
        return len(list(self.store.list(f"dreamforge/default/jobs/{job_id}/")))


@pytest.fixture
def kept(engine: Engine, tmp_path: Path) -> Kept:
    with engine.begin() as connection:
        connection.exec_driver_sql("TRUNCATE jobs CASCADE")
    return Kept(engine, tmp_path / "objects")


def test_images_go_with_their_rows_and_the_young_stay(kept: Kept) -> None:
    old, young = kept.finished(25), kept.finished(23)
    assert kept.sweep() == {"artifact": 2, "object": 3}
    assert (kept.left("artifacts", old), kept.objects(old)) == (0, 0)
    assert (kept.left("artifacts", young), kept.objects(young)) == (2, 3)
    assert kept.left("jobs", old) == 1
    assert kept.left("events", old) > 2
    assert kept.sweep() == {}


def test_events_go_and_the_outline_stays(kept: Kept) -> None:
    old, young = kept.finished(8 * DAY), kept.finished(6 * DAY)
    before = kept.left("events", young)
    kept.sweep()
    outline = rows(kept.engine, "SELECT type, seq FROM events WHERE job_id = :id ORDER BY seq", id=old)
    assert [event["type"] for event in outline] == ["state", "state"]
    last = rows(kept.engine, "SELECT last_seq FROM jobs WHERE id = :id", id=old)[0]["last_seq"]
    assert outline[-1]["seq"] == last
    assert kept.left("events", young) == before


def test_a_job_goes_with_everything(kept: Kept) -> None:
    old, young = kept.finished(31 * DAY), kept.finished(29 * DAY)
    removed = kept.sweep()
    assert removed["job"] == 1
    for table in ("jobs", "steps", "attempts", "items", "events", "artifacts"):
        assert kept.left(table, old) == 0, table
    assert kept.objects(old) == 0
    assert kept.left("jobs", young) == 1


def test_a_job_goes_with_everything_even_when_only_jobs_have_an_age(kept: Kept) -> None:
    old = kept.finished(31 * DAY)
    kept.sweep(Policy(objects_hours=0, events_hours=0, jobs_hours=720, orphan_grace_hours=0))
    assert (kept.left("jobs", old), kept.objects(old)) == (0, 0)


def test_zero_keeps_for_ever(kept: Kept) -> None:
    old = kept.finished(1000 * DAY)
    kept.put(f"dreamforge/default/jobs/{new_id()}/generate/x.png", 1000 * DAY)
    kept.told_of_models(1000 * DAY)
    assert kept.sweep(Policy(0, 0, 0, 0, 0)) == {}
    assert (kept.left("artifacts", old), kept.left("jobs", old)) == (2, 1)


def test_what_happened_to_models_goes_by_its_own_age(kept: Kept) -> None:
    kept.told_of_models(*[91 * DAY] * 7, 89 * DAY, 0)
    assert kept.sweep(Policy(batch=3)) == {"model_event": 7}
    assert rows(kept.engine, "SELECT count(*) AS n FROM model_events")[0]["n"] == 2


def test_a_live_job_is_never_touched(kept: Kept) -> None:
    live = create(kept.engine, count=2)
    runner = Runner(live)
    ingest_batch(kept.engine, runner.batch(runner.started(), runner.stored(0)), RetryPolicy())
    with kept.engine.begin() as connection:
        connection.execute(
            text("UPDATE jobs SET created_at = now() - interval '9 years' WHERE id = :id"), {"id": live}
        )
    for row in rows(kept.engine, "SELECT key FROM artifacts WHERE job_id = :id", id=live):
        kept.put(row["key"], 9 * 365 * DAY)
    unreported = kept.put(f"dreamforge/default/jobs/{live}/generate/unreported.png", 9 * 365 * DAY)
    assert kept.sweep() == {}
    assert kept.store.head(unreported) is not None


def test_replay_keys_go_when_they_expire_and_hold_their_job_until_then(kept: Kept) -> None:
    fresh, stale = kept.finished(31 * DAY), kept.finished(31 * DAY)
    insert = text(
        "INSERT INTO idempotency_keys (owner, key, body_hash, job_id, answer, created_at, expires_at) "
        "VALUES ('default', :key, 'x', :id, '{}', now(), now() + make_interval(hours => :hours))"
    )
    with kept.engine.begin() as connection:
        connection.execute(insert, [{"key": "a", "id": fresh, "hours": 1}, {"key": "b", "id": stale, "hours": -1}])
    assert kept.sweep()["idempotency_key"] == 1
    assert (kept.left("jobs", fresh), kept.left("jobs", stale)) == (1, 0)
    assert rows(kept.engine, "SELECT key FROM idempotency_keys") == [{"key": "a"}]


def test_a_dead_letter_waits_for_a_person(kept: Kept) -> None:
    dead = create(kept.engine)
    for number in range(2):
        runner = Runner(dead, f"run-{number}")
        failure = Failure(code=ErrorCode.HOST_OOM, message="137")
        batch = runner.batch(runner.started(), runner.finished(Outcome.FAILED, failure))
        ingest_batch(kept.engine, batch, RetryPolicy(first_delay=0))
    kept.age(dead, 31 * DAY)
    kept.sweep()
    assert kept.left("jobs", dead) == 1
    with kept.engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET dead_handled_at = now() WHERE id = :id"), {"id": dead})
    assert kept.sweep()["job"] == 1


def test_orphans_go_after_their_grace(kept: Kept) -> None:
    ended = kept.finished(2)
    unknown = f"dreamforge/default/jobs/{new_id()}/generate/"
    late = f"dreamforge/default/jobs/{ended}/generate/"
    old = [kept.put(f"{prefix}20260102T030405Z_9_64x64_1.png", 25) for prefix in (unknown, late)]
    new = [kept.put(f"{prefix}20260102T030405Z_8_64x64_1.png", 23) for prefix in (unknown, late)]
    foreign = [
        kept.put(f"dreamforge/default/{name}", 999) for name in ("jobs/no-id/generate/x.png", "other/a/b/c.png")
    ]
    assert kept.sweep() == {"orphan": 2}
    assert [kept.store.head(key) for key in old] == [None, None]
    assert all(kept.store.head(key) for key in new + foreign)
    assert kept.objects(ended) == 4


def test_a_crash_between_row_and_object_leaves_no_dangling_row_and_heals(kept: Kept) -> None:
    class Dies(FilesystemStore):
        def delete(self, key: str) -> None:
            raise StorageUnavailable("the store is away")

    job_id = kept.finished(25)
    with pytest.raises(StorageUnavailable):
        Retention(kept.engine, Dies(kept.folder), POLICY).sweep()
    assert (kept.left("artifacts", job_id), kept.objects(job_id)) == (0, 3)
    assert kept.sweep() == {"orphan": 3}
    assert kept.objects(job_id) == 0


def test_batches_are_small_and_nothing_is_left_out(kept: Kept) -> None:
    jobs = [kept.finished(31 * DAY + number, count=7) for number in range(5)]
    small = Policy(24, 168, 720, 24, batch=3)
    removed = kept.sweep(small)
    assert (removed["artifact"], removed["object"], removed["job"]) == (35, 40, 5)
    assert [kept.left("jobs", job_id) for job_id in jobs] == [0] * 5
    assert list(kept.store.list("dreamforge/")) == []


def test_later_passes_of_one_process_go_on_where_it_stood(kept: Kept) -> None:
    retention = Retention(kept.engine, kept.store, POLICY)
    first = kept.finished(26)
    assert retention.sweep() == {"artifact": 2, "object": 3}
    second = kept.finished(25)
    assert retention.sweep() == {"artifact": 2, "object": 3}
    assert (kept.objects(first), kept.objects(second)) == (0, 0)


def test_one_pass_at_a_time(kept: Kept) -> None:
    job_id = kept.finished(25)
    inner: list[object] = []

    class Nosy(FilesystemStore):
        def delete(self, key: str) -> None:
            inner.append(Retention(kept.engine, kept.store, POLICY).sweep())
            super().delete(key)

    Retention(kept.engine, Nosy(kept.folder), POLICY).sweep()
    assert inner == [None] * 3
    assert kept.objects(job_id) == 0


def test_a_pass_stops_when_told(kept: Kept) -> None:
    job_id = kept.finished(31 * DAY)
    Retention(kept.engine, kept.store, POLICY).sweep(lambda: True)
    assert (kept.left("artifacts", job_id), kept.left("jobs", job_id)) == (2, 1)


def by_hand(kept: Kept, database_url: str, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
    given = {"DF_DATABASE_URL": database_url, "DF_STORE_ROOT": str(kept.folder), **more}
    argv = [sys.executable, "-m", "dreamforge_api.worker.retention", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, env=clean_environment(**given))


def test_a_dry_run_says_what_would_go_and_removes_nothing(kept: Kept, database_url: str) -> None:
    old = kept.finished(31 * DAY)
    orphan = kept.put(f"dreamforge/default/jobs/{new_id()}/generate/x.png", 25)
    kept.told_of_models(91 * DAY, 0)
    done = by_hand(kept, database_url, "--dry-run")
    assert done.returncode == 0, done.stderr
    said = {line.split()[2]: line.split()[3:] for line in done.stdout.splitlines()}
    assert said["artifact"] == ["2", "20", "bytes"]
    assert (said["job"], said["model_event"]) == (["1"], ["1"])
    assert said["orphan"] == ["1", orphan, "(5", "bytes)"]
    assert (kept.left("artifacts", old), kept.objects(old)) == (2, 3)
    assert kept.store.head(orphan) is not None
    real = by_hand(kept, database_url)
    assert real.returncode == 0, real.stderr
    assert (kept.left("jobs", old), kept.objects(old), kept.store.head(orphan)) == (0, 0, None)


def test_a_wrong_setting_and_a_database_that_is_away_are_told(kept: Kept, database_url: str) -> None:
    wrong = by_hand(kept, database_url, DF_RETENTION_JOBS_HOURS="-1")
    assert (wrong.returncode, "DF_RETENTION_JOBS_HOURS" in wrong.stderr) == (2, True)
    away = by_hand(kept, "postgresql://u@127.0.0.1:1/x")
    assert (away.returncode, "not finished" in away.stderr) == (3, True)


def test_the_worker_process_does_it_by_itself(
    engine: Engine, tmp_path: Path, database_url: str, redis_db: str, kept: Kept
) -> None:
    old, young = kept.finished(2), kept.finished(0.5)
    every = {"DF_RETENTION_OBJECTS_HOURS": "1", "DF_RETENTION_INTERVAL_SECONDS": "0.2"}
    with worker(tmp_path, database_url, redis_db, **every):
        until(lambda: kept.objects(old) == 0, what="the end of the old images")
        later = kept.finished(2)
        until(lambda: kept.objects(later) == 0, what="the end of those that came later")
    assert kept.objects(young) == 3
