"""What a create request means: presets, seeds, sameness; and times and cursors as they are written."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from dreamforge.errors import ErrorCode
from dreamforge.models import DEFAULT_PROVIDER, PROVIDERS, SKETCH_PROVIDER
from dreamforge_api import times
from dreamforge_api.jobs import intake, resource
from dreamforge_api.jobs.schemas import CreateJobRequest
from dreamforge_api.models.choice import SEED_IGNORED
from dreamforge_api.parameters import cursor_of, id_of_cursor
from dreamforge_api.problem import Problem, value_class


def filled(body: dict[str, Any], own: dict[str, Any] | None = None) -> CreateJobRequest:
    return intake.with_preset(intake.validated({"prompt": "x", **body}), own or {})


@pytest.mark.parametrize(
    "other",
    [
        {"prompt": "x", "count": 1, "seed": None},
        {"prompt": "x", "guidance": 7, "steps": 30, "type": "generate"},
        {"prompt": "x", "provider": DEFAULT_PROVIDER, "labels": {}, "embed_metadata": True},
    ],
)
def test_bodies_that_mean_the_same_have_one_fingerprint(other: dict[str, Any]) -> None:
    assert intake.fingerprint(intake.validated(other)) == intake.fingerprint(intake.validated({"prompt": "x"}))


def test_bodies_that_mean_something_else_have_another() -> None:
    bodies: list[dict[str, Any]] = [
        {"prompt": "x"}, {"prompt": "x "}, {"prompt": "x", "seed": 0}, {"prompt": "x", "labels": {"a": "b"}},
        {"prompt": "x", "negative_prompt": ""}, {"prompt": "x", "model_id": "sketch"}, {"prompt": "x", "count": 2},
    ]  # fmt: skip
    assert len({intake.fingerprint(intake.validated(body)) for body in bodies}) == len(bodies)


def test_label_order_does_not_matter() -> None:
    one = intake.validated({"prompt": "x", "labels": {"a": "1", "b": "2"}})
    two = intake.validated({"prompt": "x", "labels": {"b": "2", "a": "1"}})
    assert intake.fingerprint(one) == intake.fingerprint(two)


def test_a_preset_loses_to_what_was_given_and_null_is_not_given() -> None:
    made = filled({"preset": "draft", "steps": 99, "width": None})
    assert (made.steps, made.width, made.height) == (99, 768, 768)
    assert "preset" not in intake.params_of(made)
    assert intake.params_of(made)["scheduler"] == "dpmpp_2m_karras"


def test_a_speed_preset_reaches_the_runner_and_silence_stays_silence() -> None:
    told = intake.params_of(filled({"preset": "fast-guidance-cutoff"}))
    assert told["guidance_cutoff"] == 0.4
    assert intake.params_of(filled({"preset": "fast-guidance-cutoff", "guidance_cutoff": 1}))["guidance_cutoff"] == 1
    assert "guidance_cutoff" not in intake.params_of(filled({"preset": "standard"}))


def test_a_models_own_preset_wins_and_its_versioned_name_is_kept() -> None:
    own = {
        "draft@2": {"gpu_memory_gib": 6, "defaults": {"steps": 4, "guidance": 1.5, "scheduler": "euler_a"}},
        "draft@10": {"gpu_memory_gib": 6, "defaults": {"steps": 10}},
        "standard@1": {"gpu_memory_gib": 6, "defaults": {"steps": 20}},
    }
    named = {name: filled({"preset": name}, own) for name in ("draft", "draft@1", "draft@2", "standard", "quality")}
    assert {name: (made.preset, made.steps) for name, made in named.items()} == {
        "draft": ("draft@10", 10),
        "draft@1": ("draft@1", 12),
        "draft@2": ("draft@2", 4),
        "standard": ("standard@1", 20),
        "quality": ("quality@1", 50),
    }
    assert (named["draft@2"].guidance, named["draft@2"].scheduler) == (1.5, "euler_a")
    assert (named["draft"].width, named["standard"].width) == (1024, 1024), "no mixture of two presets"


def test_a_preset_that_the_model_lacks_is_refused_with_those_it_has() -> None:
    own = {"fast@1": {"gpu_memory_gib": 6, "defaults": {"steps": 4}}}
    with pytest.raises(Problem) as refused:
        filled({"preset": "draft@2"}, own)
    assert refused.value.code is ErrorCode.UNKNOWN_PRESET
    assert {"fast", "fast@1", "draft", "draft@1"} <= set(refused.value.details[0]["allowed"])


def test_with_a_preset_the_same_body_is_the_same_whatever_the_preset_means_by_then() -> None:
    body = {"prompt": "x", "preset": "draft"}
    assert intake.fingerprint(intake.validated(body)) == intake.fingerprint(intake.validated(body | {"width": None}))
    others: list[dict[str, Any]] = [{}, {"steps": 30}, {"steps": 12}, {"preset": "quality"}, {"preset": None}]
    assert len({intake.fingerprint(intake.validated(body | other)) for other in others}) == len(others)


def test_a_preset_hides_no_mistake() -> None:
    with pytest.raises(Problem) as refused:
        intake.validated({"prompt": "x", "preset": "draft", "bogus": None, "steps": 0})
    assert {detail["pointer"] for detail in refused.value.details} == {"/bogus", "/steps"}


def test_a_seed_is_dropped_for_a_batch_only() -> None:
    batch = intake.validated({"prompt": "x", "seed": 1, "count": 2})
    assert intake.params_of(batch)["seed"] is None
    assert intake.warnings_of(batch) == [SEED_IGNORED]
    single = intake.validated({"prompt": "x", "seed": 1})
    assert intake.params_of(single)["seed"] == 1
    assert intake.warnings_of(single) == []
    assert intake.warnings_of(intake.validated({"prompt": "x", "count": 2})) == []


def test_the_schema_names_the_providers_that_exist() -> None:
    schema = CreateJobRequest.model_json_schema()["properties"]["provider"]
    assert set(schema["enum"]) == set(PROVIDERS) == {DEFAULT_PROVIDER, SKETCH_PROVIDER}


@given(st.datetimes(min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29)))
def test_times_read_back_to_the_millisecond(naive: datetime) -> None:
    moment = naive.replace(tzinfo=UTC)
    assert times.parse(times.text(moment)) == moment.replace(microsecond=moment.microsecond // 1000 * 1000)


@pytest.mark.parametrize("text", ["2026-01-01T00:00:00Z", "2026-01-01t01:00:00+01:00", "2026-01-01 00:00:00.000000z"])
def test_times_with_a_zone_are_understood(text: str) -> None:
    assert times.parse(text) == datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "text", ["2026-01-01T00:00:00", "2026-01-01", "1767225600", "20260101T000000Z", "2026-W01-1T00:00:00Z", "now", ""]
)
def test_times_without_one_are_not(text: str) -> None:
    with pytest.raises(ValueError, match="RFC 3339"):
        times.parse(text)


@given(st.uuids())
def test_a_cursor_reads_back(job_id: UUID) -> None:
    cursor = cursor_of(job_id)
    assert id_of_cursor(cursor) == job_id
    assert cursor.isascii()


@given(st.uuids(), st.sampled_from("BEhx+/="))
def test_an_id_has_one_cursor_only(job_id: UUID, last: str) -> None:
    """Base64 as Python reads it is lax: it ignores the bits that don't fit, and takes both alphabets."""
    cursor = cursor_of(job_id)
    for wrong in (cursor[:-1] + last, cursor + "=", "+" + cursor[1:], cursor[1:], cursor + "A", cursor + "\n"):
        with pytest.raises(PydanticCustomError):
            id_of_cursor(wrong)


def test_value_classes_are_those_of_json() -> None:
    values: list[tuple[Any, str]] = [
        (None, "null"), (True, "boolean"), (1, "integer"), (1.5, "number"), ("x", "string"), ([], "array"),
        ({}, "object"),
    ]  # fmt: skip
    assert [value_class(value) for value, _ in values] == [name for _, name in values]


def test_an_estimate_covers_what_is_left() -> None:
    running = {"status": "running", "count": 4, "progress": 0.5}
    assert resource.eta(running, 3.0) == 6.0
    assert resource.eta(running, None) is None
    assert resource.eta(running | {"status": "failed"}, 3.0) is None
