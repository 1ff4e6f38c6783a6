"""RenderJobs read from and written for a cluster: names, defaults, ranges, what may stand beside what."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dreamforge.errors import FACTS, ErrorCode
from dreamforge.renderjob import names
from dreamforge.renderjob.conditions import FAILURE_CLASSES, Condition, ConditionType, Phase, failed_reason
from dreamforge.renderjob.ranges import MAX_LENGTH, PATTERN, format_ranges, parse_ranges
from dreamforge.renderjob.resource import RenderJob
from dreamforge.renderjob.spec import RenderJobSpec
from dreamforge.renderjob.status import FailureStatus, GPUStatus, RenderJobStatus
from dreamforge.spec import RenderParams

UID = "42f5932e-3863-445c-bef4-896dd1677459"
METADATA = {"name": "fox", "namespace": "render", "uid": UID, "creationTimestamp": "2026-01-01T00:00:00Z"}


def render_job(spec: dict[str, Any] | None = None, **metadata: Any) -> RenderJob:
    spec = {"input": {"prompt": "a red fox"}} if spec is None else spec
    return RenderJob.model_validate({"metadata": {**METADATA, **metadata}, "spec": spec})


def test_camel_case_outside_snake_case_inside():
    spec = RenderJobSpec.model_validate({"input": {"prompt": "x", "negativePrompt": "y", "embedMetadata": False}})
    assert spec.input is not None
    assert (spec.input.negative_prompt, spec.input.embed_metadata) == ("y", False)
    assert spec.manifest() == {"input": {"prompt": "x", "negativePrompt": "y", "embedMetadata": False}}


def test_a_manifest_holds_what_was_set_and_nothing_else():
    assert RenderJobSpec(suspend=True).manifest() == {"suspend": True}
    assert GPUStatus(vram_start_mib=4).manifest() == {"vramStartMiB": 4}


def test_what_a_newer_release_wrote_can_be_read():
    job = render_job({"input": {"prompt": "x", "tiling": True}, "priority": {"boost": 1}})
    assert job.spec.manifest() == {"input": {"prompt": "x"}}
    condition = {"type": "Novel", "status": "True", "reason": "New", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    assert RenderJobStatus.model_validate({"conditions": [condition]}).conditions[0].type == "Novel"


def test_inline_input_becomes_the_parameters_of_a_job():
    asked = {"prompt": "x", "steps": 5, "guidance": 3, "guidanceCutoff": 0.4}
    job = render_job({"input": asked, "batch": {"count": 4}})
    assert job.spec.params() == RenderParams(prompt="x", steps=5, guidance=3.0, guidance_cutoff=0.4, count=4)
    assert render_job({"inputSecretRef": {"name": "s"}}).spec.params() is None


@pytest.mark.parametrize("bad", [{"prompt": " "}, {"prompt": "a\0"}, {"prompt": "x", "width": 1020}, {"prompt": 5}])
def test_input_keeps_the_rules_of_the_rest_api(bad: dict[str, Any]):
    with pytest.raises(ValidationError):
        render_job({"input": bad})


def test_the_job_id_is_the_one_that_was_set_or_one_that_stays_the_same():
    assert str(render_job({"jobId": UID, "inputSecretRef": {"name": "s"}}).job_id) == UID
    assert render_job().job_id == render_job().job_id
    assert render_job().job_id != render_job(uid=UID[:-1] + "0").job_id


def test_a_cancel_stands_even_if_it_is_taken_back():
    asked, taken_back = render_job({"cancel": True}), render_job({"cancel": False})
    latched = taken_back.model_copy(
        update={"status": RenderJobStatus.model_validate({"cancelRequestTime": "2026-01-01T00:00:00Z"})}
    )
    assert (asked.canceled, taken_back.canceled, latched.canceled) == (True, False, True)


def test_what_git_manages_is_known():
    assert not render_job().git_managed
    assert render_job(labels={names.FLUX_NAME_LABEL: "apps"}).git_managed
    assert render_job(annotations={names.ARGO_TRACKING_ANNOTATION: "apps:x"}).git_managed


def test_a_child_of_the_longest_name_leaves_room_for_its_pods():
    child = names.child_name("x" * names.MAX_NAME, UID)
    # A pod's host name is the Job's name, a dash and an index of two digits.
    assert len(f"{child}-99") <= 63
    assert names.child_name("fox", UID) != names.child_name("fox", UID.replace("42f5932e", "42f5932f"))


def test_the_name_the_api_gives_is_one_the_crd_takes():
    name = names.resource_name(render_job().job_id)
    assert len(name) <= names.MAX_NAME
    assert re.fullmatch("[a-z0-9-]+", name)


def test_an_unseen_status_says_so():
    status = render_job().status
    assert (status.observed_generation, status.phase, status.conditions) == (-1, None, [])
    assert not status.is_true(ConditionType.READY)


def test_a_condition_is_found_by_its_type():
    raw = {"type": "Ready", "status": "True", "reason": "Succeeded", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    status = RenderJobStatus(conditions=[Condition.model_validate(raw)])
    assert status.is_true(ConditionType.READY)
    assert status.condition(ConditionType.STALLED) is None


@pytest.mark.parametrize("code", FAILURE_CLASSES)
def test_a_failure_is_as_retryable_as_the_closed_list_says(code: ErrorCode):
    failure = FailureStatus.of(code, failed_reason(code))
    assert failure.manifest()["class"] == code.value
    assert failure.retryable is FACTS[code].retryable


def test_what_only_an_http_caller_sees_ends_no_job():
    assert ErrorCode.QUEUE_FULL not in FAILURE_CLASSES
    assert {code for code, facts in FACTS.items() if facts.exit_code} <= set(FAILURE_CLASSES)


def test_three_phases_are_ends():
    assert {phase for phase in Phase if phase.terminal} == {Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELED}


@pytest.mark.parametrize(
    ("indexes", "text"),
    [(set(), ""), ({0}, "0"), ({0, 1, 2, 5}, "0-2,5"), ({99, 7}, "7,99"), (range(100), "0-99")],
)
def test_ranges_are_written_short(indexes: set[int], text: str):
    assert format_ranges(indexes) == text


@given(st.frozensets(st.integers(0, 99)))
def test_ranges_are_read_as_they_were_written(indexes: frozenset[int]):
    text = format_ranges(indexes)
    assert parse_ranges(text) == indexes
    assert len(text) <= MAX_LENGTH


@given(st.from_regex(PATTERN, fullmatch=True))
def test_every_text_the_crd_takes_is_read(text: str):
    assert max(parse_ranges(text), default=0) <= 99


@pytest.mark.parametrize("text", ["1..3", "-1", "100", "1,", "a", "0-99999999999"])
def test_what_is_no_range_is_refused(text: str):
    with pytest.raises(ValueError, match="not a list of index ranges"):
        parse_ranges(text)
