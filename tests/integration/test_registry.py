"""Statements on the registry: what they change, what they note, and what they leave alone."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from dreamforge.db import registry
from dreamforge.db.engine import open_engine
from dreamforge.models import FileRole, ModelDescriptor, ModelFile, ModelKind, Provenance
from tests.jobs import create, rows
from tests.servers import postgres

VERIFIED = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture
def engine(postgres_url: str, database_template: str) -> Iterator[Engine]:
    with postgres.fresh_database(postgres_url, database_template) as url:
        made = open_engine(url)
        yield made
        made.dispose()


def model(**changes: object) -> ModelDescriptor:
    about: dict[str, object] = {
        "id": "sdxl-tiny@v1",
        "slug": "sdxl-tiny",
        "name": "Tiny",
        "kind": ModelKind.SDXL_CHECKPOINT,
        "version": "v1",
        "checkpoint_hash": "a" * 64,
        "source_uri": "hf:org/tiny@abc",
        "local_path": "/models/sdxl-checkpoint/sdxl-tiny@v1/tiny.safetensors",
        "size_bytes": 10,
        "installed": True,
        "folder": "sdxl-checkpoint/sdxl-tiny@v1",
        "files": (ModelFile(path="tiny.safetensors", role=FileRole.CHECKPOINT, size_bytes=10, sha256="a" * 64),),
        "provenance": Provenance(source="hf", ref="hf:org/tiny", commit="abc"),
        "verified_at": VERIFIED,
    }
    return ModelDescriptor.model_validate(about | changes)


def upsert(engine: Engine, given: ModelDescriptor) -> list[str]:
    with engine.begin() as connection:
        return [row.kind for row in connection.execute(registry.UPSERT, registry.upsert_parameters(given))]


def history(engine: Engine) -> list[tuple[str, str]]:
    with engine.connect() as connection:
        return [(row.kind, row.detail) for row in connection.execute(registry.history("sdxl-tiny@v1"))][::-1]


def stored(engine: Engine) -> dict[str, object]:
    return rows(engine, "SELECT * FROM models WHERE id = 'sdxl-tiny@v1'")[0]


def test_a_model_is_registered_once_and_whole(engine: Engine) -> None:
    assert upsert(engine, model()) == ["registered"]
    first = stored(engine)
    assert upsert(engine, model()) == [], "the second time nothing is new"
    assert stored(engine) == first, "not even updated_at"
    assert first["slug"] == "sdxl-tiny"
    assert first["files"] == [model().files[0].model_dump(mode="json")]
    assert (first["verified_at"], first["problem"]) == (VERIFIED, None)
    assert history(engine) == [("registered", "hf:org/tiny@abc")]


def test_what_happens_to_it_is_noted_once_each(engine: Engine) -> None:
    upsert(engine, model())
    gone = model(installed=False, problem="tiny.safetensors is gone")
    assert [upsert(engine, gone), upsert(engine, gone)] == [["not_installed"], []]
    assert upsert(engine, gone.model_copy(update={"problem": "too short"})) == ["not_installed"]
    assert upsert(engine, model()) == ["installed"]
    assert upsert(engine, model(verified_at=VERIFIED + timedelta(days=1))) == ["verified"]
    assert upsert(engine, model(name="Tiny, renamed", verified_at=VERIFIED + timedelta(days=1))) == []
    assert stored(engine)["name"] == "Tiny, renamed"
    assert [kind for kind, _ in history(engine)] == [
        "registered", "not_installed", "not_installed", "installed", "verified",
    ]  # fmt: skip


def test_other_bytes_are_another_registration_and_leave_no_old_hash(engine: Engine) -> None:
    upsert(engine, model())
    assert upsert(engine, model(checkpoint_hash="b" * 64)) == ["registered"]
    assert upsert(engine, model(checkpoint_hash=None)) == ["registered"]
    assert stored(engine)["checkpoint_hash"] is None


def test_what_a_person_switched_off_stays_off(engine: Engine) -> None:
    upsert(engine, model())
    with engine.begin() as connection:
        assert connection.execute(registry.SET_ENABLED, {"id": "sdxl-tiny@v1", "enabled": False}).rowcount == 1
        assert connection.execute(registry.SET_ENABLED, {"id": "nothing", "enabled": False}).rowcount == 0
    upsert(engine, model(name="another name"))
    assert stored(engine)["enabled"] is False


def test_the_state_is_set_by_id_and_noted_when_it_is_news(engine: Engine) -> None:
    upsert(engine, model())

    def put(problem: str | None, size: int | None = None) -> list[str]:
        given = registry.set_installed_parameters(
            "sdxl-tiny@v1", installed=problem is None, problem=problem, size_bytes=size
        )
        with engine.begin() as connection:
            return [row.kind for row in connection.execute(registry.SET_INSTALLED, given)]

    assert [put(None), put("gone"), put("gone"), put(None, 11)] == [[], ["not_installed"], [], ["installed"]]
    assert stored(engine)["size_bytes"] == 11
    with engine.begin() as connection:
        nobody = registry.set_installed_parameters("nothing", installed=True)
        assert connection.execute(registry.SET_INSTALLED, nobody).all() == []


def test_a_model_in_use_is_not_removed(engine: Engine) -> None:
    upsert(engine, model())
    job_id = create(engine)
    used = {"id": "sdxl-tiny@v1", "detail": "by hand"}
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET model_id = 'sdxl-tiny@v1'"))
        assert connection.execute(registry.LIVE_JOBS, {"id": "sdxl-tiny@v1"}).scalar_one() == 1
        assert connection.execute(registry.REMOVE, used).all() == []
        ended = "UPDATE jobs SET status = 'canceled', finished_at = now() WHERE id = :id"
        connection.execute(text(ended), {"id": job_id})
        assert connection.execute(registry.REMOVE, used).all() == [("removed", "by hand")]
        assert connection.execute(registry.REMOVE, used).all() == []
    assert rows(engine, "SELECT id FROM models WHERE id <> 'sketch'") == []
    assert history(engine)[-1] == ("removed", "by hand"), "what happened outlives it"
