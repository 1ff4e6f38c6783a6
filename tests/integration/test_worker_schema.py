"""A worker that comes before the migration, as on a cluster, waits for it and works then."""

from pathlib import Path

from sqlalchemy import text

from dreamforge.db.engine import open_engine
from tests.api_server import poll
from tests.jobs import create, rows
from tests.servers import postgres
from tests.servers.worker import worker


def test_a_worker_waits_for_its_schema(tmp_path: Path, empty_database_url: str, redis_db: str) -> None:
    with worker(tmp_path, empty_database_url, redis_db) as log:
        poll(lambda: "waiting for the schema" in log.read_text(), "the worker to wait")
        assert "worker started" not in log.read_text()
        postgres.migrate(empty_database_url)
        poll(lambda: "worker started" in log.read_text(), "the worker to start")
        engine = open_engine(empty_database_url, pool_size=1)
        job_id = create(engine)
        poll(
            lambda: rows(engine, "SELECT dispatched_at FROM jobs WHERE id = :id", id=job_id)[0]["dispatched_at"], "it"
        )
        engine.dispose()


def test_a_worker_that_waits_can_be_stopped_and_takes_a_newer_schema(
    tmp_path: Path, postgres_url: str, database_template: str, redis_db: str
) -> None:
    with postgres.fresh_database(postgres_url, database_template) as url:
        engine = open_engine(url, pool_size=1)
        for revision, said in (("0001", "waiting for the schema"), ("9999", "worker started")):
            with engine.begin() as connection:
                connection.execute(text("UPDATE alembic_version SET version_num = :to"), {"to": revision})
            with worker(tmp_path, url, redis_db) as log:
                poll(lambda said=said, log=log: said in log.read_text(), said)
        engine.dispose()
