"""Migrations and tables agree, and a database with rows survives the way down and up again."""

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from dreamforge.db.engine import open_engine
from dreamforge.db.tables import metadata
from dreamforge.events import Outcome
from dreamforge_api import migrate
from dreamforge_api.worker.ingest import ingest_batch
from dreamforge_api.worker.retry import RetryPolicy
from tests.jobs import Runner, create, rows


def test_tables_and_migrations_agree(empty_database_url: str) -> None:
    migrate.upgrade(empty_database_url)
    engine = open_engine(empty_database_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
        assert context.get_current_revision() == migrate.head()
        # Autogenerate does not look at check constraints: build the tables once more and compare those.
        connection.execute(text("CREATE SCHEMA declared"))
        metadata.create_all(connection.execution_options(schema_translate_map={None: "declared"}))
        checks = text(
            "SELECT n.nspname, c.conname, pg_get_constraintdef(c.oid) FROM pg_constraint c "
            "JOIN pg_namespace n ON n.oid = c.connamespace WHERE c.contype = 'c' AND c.conname LIKE 'ck%'"
        )
        found: dict[str, set[tuple[str, str]]] = {"public": set(), "declared": set()}
        for schema, name, definition in connection.execute(checks):
            found[schema].add((name, definition))
    engine.dispose()
    assert found["public"] == found["declared"]
    assert len(found["public"]) > 20


def test_down_and_up_again_with_rows(empty_database_url: str) -> None:
    migrate.upgrade(empty_database_url)
    engine = open_engine(empty_database_url)

    def fill() -> None:
        job_id = create(engine)
        runner = Runner(job_id)
        batch = runner.batch(
            runner.started(), runner.stored(0), runner.gpu(), runner.finished(Outcome.SUCCEEDED, done=1)
        )
        ingest_batch(engine, batch, RetryPolicy())

    fill()
    assert rows(engine, "SELECT status FROM jobs") == [{"status": "succeeded"}]
    migrate.upgrade(empty_database_url, "base")
    left = rows(engine, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert left == [{"tablename": "alembic_version"}]
    migrate.upgrade(empty_database_url)
    fill()
    assert rows(engine, "SELECT status FROM jobs") == [{"status": "succeeded"}]
    engine.dispose()


def test_running_it_again_changes_nothing(empty_database_url: str) -> None:
    migrate.upgrade(empty_database_url)
    migrate.upgrade(empty_database_url)
    engine = open_engine(empty_database_url)
    assert rows(engine, "SELECT version_num FROM alembic_version") == [{"version_num": migrate.head()}]
    engine.dispose()


def test_an_older_revision_is_gone_back_to(empty_database_url: str) -> None:
    engine = open_engine(empty_database_url)
    for to, version in (("head", migrate.head()), ("0004", "0004"), ("0004", "0004"), ("head", migrate.head())):
        migrate.upgrade(empty_database_url, to)
        assert rows(engine, "SELECT version_num FROM alembic_version") == [{"version_num": version}]
    create(engine)
    engine.dispose()


#: How the release before 0005 registers a model.
_REGISTERED_BEFORE = """
INSERT INTO models AS m (id, name, kind, version, source_uri, local_path, installed, enabled, parameters_schema,
                         capabilities)
VALUES (:id, 'A', 'sdxl-checkpoint', 'local', 'file:a', '/a', true, true, '{}', '[]')
ON CONFLICT (id) DO UPDATE SET name = excluded.name
"""


def test_models_of_the_release_before_are_models_of_this_one(empty_database_url: str) -> None:
    migrate.upgrade(empty_database_url, "0004")
    engine = open_engine(empty_database_url)

    def register(model_id: str) -> None:
        with engine.begin() as connection:
            connection.execute(text(_REGISTERED_BEFORE), {"id": model_id})

    register("sdxl-a")
    migrate.upgrade(empty_database_url)
    register("sdxl-a")  # while both releases run
    register("sdxl-b")
    found = rows(engine, "SELECT id, slug, folder, files, presets, problem FROM models ORDER BY id")
    nothing: dict[str, object] = {"folder": None, "files": [], "presets": {}, "problem": None}
    assert found == [{"id": one, "slug": one, **nothing} for one in ("sdxl-a", "sdxl-b")]
    engine.dispose()
