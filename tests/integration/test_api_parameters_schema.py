"""The schema of a model's parameters and ``POST /v1/jobs`` agree: what one takes the other takes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from sqlalchemy import Engine

from dreamforge.presets import FILLABLE
from dreamforge.spec import ImageParams, RenderParams
from dreamforge_api.worker.registry_sync import RegistrySync
from tests.api_server import Api, poll
from tests.models_on_disk import install

MODELS = ("sketch", "sdxl-tiny@v1")
_ABSENT = object()

#: For each parameter, good values and bad ones.
VALUES: dict[str, tuple[list[Any], list[Any]]] = {
    "prompt": (
        ["x", " x ", "a\tb\r\nc", "é漢🜂", "x" * 4000, "🜂" * 4000, "null", "<script>", "\x7f"],
        [_ABSENT, None, "", " ", "\n\t ", "x" * 4001, "a\x00b", "a\x1bb", "\x0b", 1, True, [], {}, ["x"]],
    ),
    "negative_prompt": (["", "x", None, "x" * 4000, "\n"], ["x" * 4001, "\x00", 0, False, []]),
    "width": ([256, 264, 1024, 2048, None], [0, -8, 248, 255, 257, 1023, 2049, 2056, 256.5, "1024", True, [], 1e300]),
    "height": ([256, 2048, None], [255, 2056, 1000.5, "256", False, {}]),
    "steps": ([1, 30, 150, None], [0, -1, 151, 1.5, "30", True, [30]]),
    "guidance": ([0, 0.0, 7, 7.5, 1e-9, 30, 30.0, None], [-0.1, 30.001, 31, "7", True, [], 1e308]),
    "guidance_cutoff": ([0, 0.4, 1, None], [-0.1, 1.001, 40, "0.4", True]),
    "scheduler": (
        ["euler", "euler_a", "dpmpp_2m", "dpmpp_2m_karras", "ddim", "unipc", None],
        ["", "Euler", "EULER", "euler ", "karras", 0, 1, True, ["euler"], {}],
    ),
    "seed": ([0, 1, 2**32 - 1, None], [-1, 2**32, 0.5, "0", True, 1e20]),
    "format": (["png", "jpg", None], ["PNG", "jpeg", "webp", "", 1, False]),
    "embed_metadata": ([True, False, None], [0, 1, "true", "yes", []]),
    "count": ([1, 5, 100, None], [0, -1, 101, 1.5, "1", True]),
    "preset": (
        ["draft", "draft@1", "standard", "portrait@1", "landscape", "quality@1", None],
        ["", "nope", "draft@2", "draft@01", "draft@", "@1", "Draft", "draft@1 ", 1, True, ["draft"], {}],
    ),
    "bogus": ([_ABSENT], [None, 1, "x"]),
    "Prompt": ([_ABSENT], ["x"]),
}
OWN = {"fast@3": {"gpu_memory_gib": 6, "defaults": {"steps": 4}}}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, database_url: str, redis_url: str) -> Iterator[Api]:
    with Api(tmp_path_factory.mktemp("api"), database_url, redis_url, DF_MAX_QUEUED="100000") as running:
        yield running


@pytest.fixture(scope="module")
def schemas(api: Api, engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """As the API shows them, of a model without presets of its own and of one with some."""
    root: Path = tmp_path_factory.mktemp("models")
    install(root, presets=OWN)
    RegistrySync(engine, root, None).sweep()
    named = {"prompt": "x", "model_id": MODELS[1]}
    poll(lambda: api.client.post("/v1/jobs", json=named).status_code == 202, "the API to see the model")
    return {name: api.client.get(f"/v1/models/{name}").json()["parameters_schema"] for name in MODELS}


def bodies() -> list[dict[str, Any]]:
    """Each value beside a good prompt; then pairs of values whose rules might meet."""
    made = [
        {name: value for name, value in {"prompt": "x", field: value}.items() if value is not _ABSENT}
        for field, (good, bad) in VALUES.items()
        for value in (*good, *bad)
    ]
    made += [{"prompt": "x", "seed": 7, "count": 5}, {"prompt": "x", "preset": "draft", "width": 100}]
    made += [{"prompt": "x", "preset": "draft", "bogus": None}, {"prompt": "x", "preset": "quality", "steps": None}]
    made += [{}, {"width": 512}]
    return made


@pytest.mark.parametrize("model_id", MODELS)
def test_what_the_schema_takes_the_api_takes_and_what_it_refuses_the_api_refuses(
    api: Api, schemas: dict[str, dict[str, Any]], model_id: str
) -> None:
    own = [{"prompt": "x", "preset": name} for name in ("fast", "fast@3", "fast@1")]
    disagree = []
    verdicts = set()
    validator = Draft202012Validator(schemas[model_id])
    for body in [*bodies(), *own]:
        schema_says = validator.is_valid(body)
        answer = api.client.post("/v1/jobs", json={**body, "model_id": model_id})
        assert answer.status_code in (202, 422), answer.text
        verdicts.add(schema_says)
        if schema_says != (answer.status_code == 202):
            disagree.append((body, schema_says, answer.status_code))
    assert disagree == []
    assert verdicts == {True, False}


def test_the_corpus_says_of_each_value_what_it_is_and_forgets_no_parameter(
    schemas: dict[str, dict[str, Any]],
) -> None:
    schema = schemas["sketch"]
    assert set(VALUES) - {"bogus", "Prompt"} == set(schema["properties"]) == {*RenderParams.model_fields, "preset"}
    validator = Draft202012Validator(schema)
    for field, values in VALUES.items():
        for expected, some in zip((True, False), values, strict=True):
            for value in some:
                body = {name: one for name, one in {"prompt": "x", field: value}.items() if one is not _ABSENT}
                assert validator.is_valid(body) is expected, (field, value)


def test_a_form_builder_finds_all_it_needs(schemas: dict[str, dict[str, Any]]) -> None:
    for schema in schemas.values():
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        assert "$ref" not in str(schema)
        for name, shown in schema["properties"].items():
            assert shown["title"], name
            assert shown["description"], name
            assert ("default" in shown) == (name not in schema["required"]), name
            assert ("oneOf" in shown) != ("type" in shown), name
            if "default" in shown:
                assert Draft202012Validator(shown).is_valid(shown["default"]), name
            for choice in shown.get("oneOf", ()):
                assert choice["title"], (name, choice)
    sizes = schemas["sketch"]["properties"]["width"]
    assert (sizes["minimum"], sizes["maximum"], sizes["multipleOf"], sizes["default"]) == (256, 2048, 8, 1024)
    presets = schemas[MODELS[1]]["properties"]["preset"]["oneOf"]
    title = next(choice["title"] for choice in presets if choice["const"] == "fast@3")
    assert title == "Fast, version 3: 4 steps, for 6 GiB of GPU memory and more"


def test_what_is_left_out_is_what_the_schema_says(api: Api, schemas: dict[str, dict[str, Any]]) -> None:
    shown = schemas["sketch"]["properties"]
    params = api.create(prompt="x", model_id="sketch")["params"]
    assert params == {name: shown[name].get("default", "x") for name in params}
    assert set(params) == set(shown) - {"preset", "guidance_cutoff"}  # which is told back where it was asked for


def test_a_preset_fills_only_what_a_request_may_say() -> None:
    assert set(ImageParams.model_fields) >= FILLABLE
