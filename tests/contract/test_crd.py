"""``crds/renderjobs.yaml`` is what the models say, and holds what every API server and every reader needs.

That an API server takes it, and what it then refuses, is seen in ``tests/cluster/test_crd.py``.
"""

import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import yaml

from dreamforge.errors import ErrorCode
from dreamforge.renderjob.conditions import FAILURE_CLASSES, REASONS, ConditionType, Phase, failed_reason
from dreamforge.renderjob.rules import RULES
from dreamforge.renderjob.spec import RenderInput
from dreamforge.spec import RenderParams
from tests.contract.project import ROOT, load_script

crds: ModuleType = load_script("crds")
TEXT = (ROOT / "crds/renderjobs.yaml").read_text(encoding="utf-8")
(VERSION,) = yaml.safe_load(TEXT)["spec"]["versions"]
SCHEMA = VERSION["schema"]["openAPIV3Schema"]

Node = dict[str, Any]


def nodes(node: Node, path: str = "") -> Iterator[tuple[str, Node]]:
    """Every node of the schema with its path, the root's being empty."""
    yield path, node
    for name, field in node.get("properties", {}).items():
        yield from nodes(field, f"{path}.{name}")
    if "items" in node:
        yield from nodes(node["items"], f"{path}[]")


NODES = dict(nodes(SCHEMA))
OURS = {path: node for path, node in NODES.items() if path.startswith((".spec", ".status"))}


def test_the_file_is_what_the_models_say():
    assert crds.rendered() == TEXT, "run: make crds"


def test_the_schema_uses_no_word_that_kubernetes_has_not():
    known = {*crds._KEPT, "description", "properties", "items", "required", "x-kubernetes-validations"}
    for path, node in NODES.items():
        assert set(node) <= known, path


@pytest.mark.parametrize("path", OURS)
def test_every_field_is_bounded(path: str):
    node = OURS[path]
    match node["type"]:
        case "string":
            assert "maxLength" in node or "enum" in node
        case "array":
            assert "maxItems" in node
        case "integer" | "number":
            assert "minimum" in node
            assert "maximum" in node or path.endswith("bservedGeneration")
        case other:
            assert other == "boolean" or node["properties"]


@pytest.mark.parametrize("path", [path for path in OURS if not path.endswith("[]")])
def test_every_field_says_what_it_is_in_a_sentence(path: str):
    told = OURS[path]["description"]
    assert re.fullmatch(r"[A-Z].*\.", told), told
    assert not re.search(r"`|\n|  ", told)


def test_objects_with_a_default_have_no_rule_of_their_own():
    """An API server refuses both on one object."""
    for path, node in NODES.items():
        assert not (node["type"] == "object" and "default" in node and "x-kubernetes-validations" in node), path


def test_every_rule_stands_in_the_schema_with_a_message():
    written = {
        path: node["x-kubernetes-validations"] for path, node in NODES.items() if "x-kubernetes-validations" in node
    }
    assert set(written) == {"".join(f".{part}" for part in path).replace(".*", "[]") for path in RULES}
    for rules in written.values():
        for rule in rules:
            assert len(rule["message"]) > 20
            # Where a refusal points is a field that exists.
            if "fieldPath" in rule:
                assert f".spec{rule['fieldPath']}" in OURS


@pytest.mark.parametrize("column", VERSION["additionalPrinterColumns"], ids=lambda column: column["name"])
def test_a_column_shows_a_field_that_exists(column: Node):
    path = column["jsonPath"].replace('[?(@.type=="Ready")]', "[]")
    assert path in NODES or path == ".metadata.creationTimestamp"


@pytest.mark.parametrize("path", [entry["jsonPath"] for entry in VERSION["selectableFields"]])
def test_what_can_be_selected_exists(path: str):
    assert NODES[path]["type"] == "string"


def test_inline_input_has_the_parameters_of_the_rest_api_but_count_with_their_defaults_and_bounds():
    for name, field in RenderInput.model_fields.items():
        node = OURS[f".spec.input.{field.alias}"]
        rest = RenderParams.model_json_schema()["properties"][name]
        rest = {**rest, **rest.get("anyOf", [{}])[0]}
        for word in ("minimum", "maximum", "multipleOf", "maxLength", "minLength", "default"):
            assert node.get(word) == rest.get(word), (name, word)
    assert set(RenderParams.model_fields) - set(RenderInput.model_fields) == {"count"}
    assert OURS[".spec.batch.count"]["maximum"] == 100


def test_an_unseen_object_is_told_from_a_finished_one():
    assert SCHEMA["properties"]["status"]["default"] == {"observedGeneration": -1, "phase": "Pending"}


def test_phases_and_failure_classes_are_the_closed_lists():
    assert OURS[".status.phase"]["enum"] == [phase.value for phase in Phase]
    assert OURS[".status.failure.class"]["enum"] == [code.value for code in FAILURE_CLASSES]


@pytest.mark.parametrize("code", FAILURE_CLASSES)
def test_every_failure_class_has_a_reason_for_the_failed_condition(code: ErrorCode):
    assert failed_reason(code).replace("_", "").lower() == code.replace("_", "").lower()


def test_every_condition_type_has_its_reasons():
    pattern = OURS[".status.conditions[].reason"]["pattern"]
    assert set(REASONS) == set(ConditionType)
    for kind, reasons in REASONS.items():
        assert re.fullmatch(OURS[".status.conditions[].type"]["pattern"], kind)
        for reason in reasons:
            assert re.fullmatch(pattern, reason)


def test_conditions_are_a_map_by_type():
    conditions = OURS[".status.conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
