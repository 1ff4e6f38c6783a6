"""The short form of `make fuzz`: some hundred calls drawn from the document, the same ones for one seed."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.fuzz import attack
from tests.fuzz.system import Target

_SEED = 1


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    running = Target(tmp_path_factory.mktemp("fuzz") / "data")
    try:
        running.start()
        yield running
    finally:
        running.end()


def test_every_answer_keeps_the_document(target: Target) -> None:
    account = attack.run(target.up.url, 900, _SEED)
    assert account.violations == []
    assert account.server_errors == account.unavailable <= 5
    assert target.defects() == []
    assert account.phases.keys() >= {"coverage", "fuzzing", "stateful"}
    assert {"POST /v1/jobs", "GET /v1/jobs/{job_id}/progress/stream"} <= account.by_operation().keys()
    assert target.drained(60)["failed"] == 0


def _lie(document: dict[str, Any]) -> None:
    """A document that promises what the API does not do: a number as text, and no refusals."""
    document["paths"] = {"/v1/models": document["paths"]["/v1/models"], "/v1/jobs": document["paths"]["/v1/jobs"]}
    document["components"]["schemas"]["Model"]["properties"]["id"] = {"type": "integer"}
    del document["paths"]["/v1/jobs"]["post"]["responses"]["422"]
    for methods in document["paths"].values():
        for operation in methods.values():
            for answer in operation["responses"].values():
                answer.pop("links", None)


def test_a_lie_in_the_document_is_found(target: Target) -> None:
    """The judge is judged: it must see damage of each kind."""
    found = "\n".join(attack.run(target.up.url, 150, _SEED, _lie).violations)
    assert "response_schema_conformance: GET /v1/models" in found
    assert "status_code_conformance: POST /v1/jobs" in found
