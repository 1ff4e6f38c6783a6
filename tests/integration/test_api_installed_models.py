"""Installed models through the real API: what is shown of them, which one a job gets, and whose presets count."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from sqlalchemy import Engine

from dreamforge.db import registry
from dreamforge.models import EPICREALISM
from dreamforge.models_root import InstalledModel
from dreamforge_api.app import create_app
from dreamforge_api.worker.registry_sync import RegistrySync
from tests.api_server import Api, poll
from tests.jobs import rows
from tests.models_on_disk import install

OWN = {
    "draft@2": {"gpu_memory_gib": 6, "defaults": {"steps": 4, "guidance": 1.5}},
    "poster@1": {"gpu_memory_gib": 24, "defaults": {"width": 2048, "height": 1024, "scheduler": "unipc"}},
}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, database_url: str, redis_url: str) -> Iterator[Api]:
    """With room for the jobs that these tests make to see which model a job gets."""
    with Api(tmp_path_factory.mktemp("api"), database_url, redis_url, DF_MAX_QUEUED="100000") as running:
        yield running


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def installed(root: Path, api: Api, engine: Engine) -> list[InstalledModel]:
    """Two versions of one model, the second with presets of its own; the registry knows them by the worker's pass."""
    made = [install(root, version="v1"), install(root, version="v2", presets=OWN)]
    RegistrySync(engine, root, None).sweep()
    poll(lambda: _choice(api, "sdxl-tiny") == made[1].id, "the API to see them")
    return made


def _choice(api: Api, model_id: str | None) -> str:
    """The model a job gets, or the code of the refusal."""
    made = api.client.post("/v1/jobs", json={"prompt": "x", "model_id": model_id}).json()
    return str(made.get("model_id") or made["code"])


def resource(api: Api, model_id: str) -> dict[str, Any]:
    answer = api.client.get(f"/v1/models/{model_id}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_model_is_shown_whole_and_as_the_document_says(
    api: Api, installed: list[InstalledModel], root: Path
) -> None:
    model = installed[1]
    shown = resource(api, model.id)
    assert (shown["id"], shown["slug"], shown["version"]) == ("sdxl-tiny@v2", "sdxl-tiny", "v2")
    assert shown["files"] == [file.model_dump(mode="json") for file in model.files]
    assert shown["provenance"] == model.provenance.model_dump(mode="json")
    assert shown["local_path"] == str(root / model.folder / "tiny.safetensors")
    assert (shown["installed"], shown["enabled"], shown["problem"]) == (True, True, None)
    assert shown["verified_at"] == model.verified_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert shown["presets"]["poster@1"] == OWN["poster@1"]
    assert shown["presets"]["portrait@1"]["gpu_memory_gib"] == 12
    assert api.client.get("/v1/models").json()["items"][-1] == shown
    document = create_app().openapi()
    schema = {"$ref": "#/components/schemas/Model", "components": document["components"]}
    for one in api.client.get("/v1/models").json()["items"]:
        Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(one)
        Draft202012Validator.check_schema(one["parameters_schema"])


def test_a_slug_means_the_newest_version_and_the_row_keeps_its_id(
    api: Api, engine: Engine, installed: list[InstalledModel], root: Path
) -> None:
    old, new = installed
    job = api.create(model_id=old.slug)
    assert job["model_id"] == new.id
    assert rows(engine, "SELECT model_id FROM jobs WHERE id = :id", id=job["id"]) == [{"model_id": new.id}]
    assert api.create(model_id=old.id)["model_id"] == old.id
    assert api.create()["model_id"] == new.id, "the only model there is, in its newest version"
    listed = api.client.get("/v1/jobs", params={"model_id": old.id}).json()["items"]
    assert {one["model_id"] for one in listed} == {old.id}


def test_a_model_brings_its_own_presets(api: Api, installed: list[InstalledModel]) -> None:
    old, new = installed
    meant = {
        (old.id, "draft"): ("draft@1", 12, 768),
        (new.id, "draft"): ("draft@2", 4, 1024),
        (new.id, "draft@1"): ("draft@1", 12, 768),
        (new.id, "poster"): ("poster@1", 30, 2048),
    }
    for (model_id, preset), expected in meant.items():
        job = api.create(model_id=model_id, preset=preset)
        assert (job["preset"], job["params"]["steps"], job["params"]["width"]) == expected
        assert api.client.get(job["urls"]["self"]).json()["preset"] == expected[0]
    for model_id in (old.id, "sketch"):
        refused = api.client.post("/v1/jobs", json={"prompt": "x", "model_id": model_id, "preset": "poster"})
        assert (refused.status_code, refused.json()["code"]) == (422, "unknown_preset")
        assert "poster" not in refused.json()["details"][0]["allowed"]


def test_a_replay_is_the_first_answer_even_when_the_preset_or_the_slug_means_something_else_by_now(
    api: Api, engine: Engine, root: Path
) -> None:
    sync = RegistrySync(engine, root, None)
    install(root, "sdxl-moving", "1")
    sync.sweep()
    poll(lambda: _choice(api, "sdxl-moving") == "sdxl-moving@1", "the first version")
    body = {"prompt": "x", "model_id": "sdxl-moving", "preset": "draft"}
    key = {"Idempotency-Key": "moving"}
    first = api.client.post("/v1/jobs", json=body, headers=key)
    install(root, "sdxl-moving", "2", presets=OWN)
    sync.sweep()
    poll(lambda: _choice(api, "sdxl-moving") == "sdxl-moving@2", "the second version")
    again = api.client.post("/v1/jobs", json=body, headers=key)
    assert (again.headers["idempotency-replayed"], again.content) == ("true", first.content)
    assert api.create(**body)["preset"] == "draft@2"
    for model_id in ("sdxl-moving@1", "sdxl-moving@2"):
        with engine.begin() as connection:
            connection.execute(registry.SET_ENABLED, {"id": model_id, "enabled": False})


def test_what_is_gone_is_refused_with_its_reason_and_the_older_version_steps_in(
    api: Api, engine: Engine, installed: list[InstalledModel], root: Path
) -> None:
    old, new = installed
    file = root / new.folder / "tiny.safetensors"
    content = file.read_bytes()
    file.unlink()
    sync = RegistrySync(engine, root, None)
    sync.sweep()
    poll(lambda: _choice(api, new.id) == "unknown_model", "the API to hear of it")
    refused = api.client.post("/v1/jobs", json={"prompt": "x", "model_id": new.id}).json()
    assert "tiny.safetensors can't be reached" in refused["detail"]
    assert refused["details"][0]["allowed"] == [old.id, "sketch"]
    assert resource(api, new.id)["problem"] is not None
    assert api.create(model_id=old.slug)["model_id"] == old.id
    file.write_bytes(content)
    sync.sweep()
    poll(lambda: _choice(api, new.id) == new.id, "it to be back")


def test_epicrealism_is_the_default_and_of_several_others_none_is(
    api: Api, engine: Engine, installed: list[InstalledModel], root: Path
) -> None:
    sync = RegistrySync(engine, root, None)
    install(root, "sdxl-second")
    sync.sweep()
    poll(lambda: _choice(api, None) == "unknown_model", "a second model")
    refused = api.client.post("/v1/jobs", json={"prompt": "x"}).json()
    assert "none is the default" in refused["detail"]
    assert refused["details"][0]["allowed"] == ["sdxl-second@v1", "sdxl-tiny@v1", "sdxl-tiny@v2", "sketch"]
    install(root, EPICREALISM, "8")
    sync.sweep()
    poll(lambda: _choice(api, None) == f"{EPICREALISM}@8", "the default model")
