"""The committed OpenAPI document is what the code says, and says all of it."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from dreamforge.errors import FACTS
from dreamforge_api import openapi
from dreamforge_api.app import create_app
from dreamforge_api.openapi_parts import PROBLEM_SCHEMA

ROOT = Path(__file__).parents[2]
CALLS = {
    ("post", "/v1/jobs"), ("get", "/v1/jobs"), ("get", "/v1/jobs/{job_id}"), ("post", "/v1/jobs/{job_id}/cancel"),
    ("get", "/v1/jobs/{job_id}/artifacts"), ("get", "/v1/jobs/{job_id}/logs"), ("get", "/v1/jobs/{job_id}/progress"),
    ("get", "/v1/jobs/{job_id}/progress/stream"), ("get", "/v1/models"), ("get", "/v1/models/{model_id}"),
    ("get", "/v1/objects/{key}"), ("get", "/healthz"), ("get", "/readyz"), ("get", "/metrics"),
}  # fmt: skip


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app().openapi()


@pytest.mark.parametrize("path", openapi.rendered())
def test_what_is_committed_is_current(path: Path) -> None:
    assert (ROOT / path).read_text("utf-8") == openapi.rendered()[path], "run python -m dreamforge_api.openapi"


def test_json_and_yaml_say_the_same() -> None:
    as_json = json.loads((ROOT / "docs/openapi/openapi.v1.json").read_text("utf-8"))
    assert yaml.safe_load((ROOT / "docs/openapi/openapi.v1.yaml").read_text("utf-8")) == as_json


def test_every_call_is_there_and_no_other(document: dict[str, Any]) -> None:
    found = {(method, path) for path, methods in document["paths"].items() for method in methods}
    assert found == CALLS


def _operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def test_every_call_has_a_summary_and_every_error_an_example(document: dict[str, Any]) -> None:
    for name, operation in _operations(document):
        assert operation["summary"], name
        for status, answer in operation["responses"].items():
            assert answer["description"], (name, status)
            if status[0] == "4" or (status == "503" and name != "get /readyz"):
                shape = answer["content"]["application/problem+json"]
                assert shape["schema"] == {"$ref": "#/components/schemas/Problem"}
                assert shape["examples"], (name, status)


def test_examples_keep_their_schemas(document: dict[str, Any]) -> None:
    def check(schema: dict[str, Any], value: Any) -> None:
        Draft202012Validator({**schema, "components": document["components"]}).validate(value)

    for _, operation in _operations(document):
        shapes = [shape for answer in operation["responses"].values() for shape in answer.get("content", {}).values()]
        shapes += list(operation.get("requestBody", {}).get("content", {}).values())
        for shape in shapes:
            values = [given["value"] for given in shape.get("examples", {}).values()]
            values += [shape["example"]] if "example" in shape else []
            for value in values:
                check(shape.get("schema", {}), value)  # streams have a schema for each item instead


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return own + [found for part in value.values() for found in references(part)]
        if isinstance(value, list):
            return [found for part in value for found in references(part)]
        return []

    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(references(document)) <= known


def test_the_problem_schema_knows_every_code() -> None:
    assert set(PROBLEM_SCHEMA["properties"]["code"]["enum"]) == {
        code.value for code, facts in FACTS.items() if facts.http_status
    }
