"""Everything wrong that a client can send: the 4xx of the contract, never a 500, never a row."""

import gzip
import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, text

from tests.api_server import Api

JSON = {"content-type": "application/json"}


@pytest.fixture
def no_new_row(engine: Engine) -> Iterator[None]:
    def count() -> Any:
        with engine.connect() as connection:
            return connection.execute(
                text("SELECT (SELECT count(*) FROM jobs), (SELECT count(*) FROM idempotency_keys)")
            ).one()

    before = count()
    yield
    assert count() == before


MALFORMED: dict[str, bytes] = {
    "empty": b"",
    "blank": b" \n",
    "truncated": b'{"prompt": "x"',
    "trailing": b'{"prompt": "x"} {}',
    "no value": b'{"prompt": }',
    "single quotes": b"{'prompt': 'x'}",
    "duplicate name": b'{"prompt": "x", "prompt": "y"}',
    "nested duplicate": b'{"prompt": "x", "labels": {"a": "1", "a": "2"}}',
    "NaN": b'{"prompt": "x", "guidance": NaN}',
    "Infinity": b'{"prompt": "x", "guidance": -Infinity}',
    "overflow": b'{"prompt": "x", "guidance": 1e400}',
    "many digits": b'{"prompt": "x", "seed": ' + b"9" * 5000 + b"}",
    "deep arrays": b"[" * 10_000 + b"]" * 10_000,
    "deep objects": b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    "byte order mark": b'\xef\xbb\xbf{"prompt": "x"}',
    "UTF-16": '{"prompt": "x"}'.encode("utf-16"),
    "not UTF-8": b'{"prompt": "\xff"}',
    "raw surrogate": b'{"prompt": "\xed\xa0\x80"}',
    "gzip": gzip.compress(b'{"prompt": "x"}'),
    "raw newline in a string": b'{"prompt": "a\nb"}',
    "NUL byte": b'{"prompt": "x"}\0',
}


@pytest.mark.parametrize("name", MALFORMED)
@pytest.mark.usefixtures("no_new_row")
def test_a_body_that_is_not_json_is_400(api: Api, name: str) -> None:
    answer = api.client.post("/v1/jobs", content=MALFORMED[name], headers=JSON)
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "malformed_body"


#: field, value, rule, class
BROKEN: list[tuple[str, Any, str, str]] = [
    *(("width", v, r, c) for v, r, c in [
        (0, "greater_than_equal", "integer"), (-8, "greater_than_equal", "integer"), (257, "multiple_of", "integer"),
        (2056, "less_than_equal", "integer"), ("1024", "int_type", "string"), (True, "int_type", "boolean"),
        (1024.0, "int_type", "number"), ([], "int_type", "array"), ({}, "int_type", "object"),
        (2**64, "less_than_equal", "integer"),
    ]),
    ("height", 1023, "multiple_of", "integer"),
    ("steps", 0, "greater_than_equal", "integer"),
    ("steps", 151, "less_than_equal", "integer"),
    ("count", 0, "greater_than_equal", "integer"),
    ("count", 101, "less_than_equal", "integer"),
    ("guidance", -1, "greater_than_equal", "integer"),
    ("guidance", 30.1, "less_than_equal", "number"),
    ("guidance", 1e9, "less_than_equal", "number"),
    ("guidance", "7", "float_type", "string"),
    ("guidance", True, "float_type", "boolean"),
    ("seed", -1, "greater_than_equal", "integer"),
    ("seed", 2**32, "less_than_equal", "integer"),
    ("seed", 2**64, "less_than_equal", "integer"),
    ("format", "PNG", "enum", "string"),
    ("format", "png;x", "enum", "string"),
    ("format", "gif", "enum", "string"),
    ("format", 1, "enum", "integer"),
    ("scheduler", "__class__", "enum", "string"),
    ("scheduler", [], "enum", "array"),
    ("embed_metadata", "true", "bool_type", "string"),
    ("embed_metadata", 1, "bool_type", "integer"),
    ("prompt", "", "string_too_short", "string"),
    ("prompt", "  \n\t ", "text_blank", "string"),
    ("prompt", "x" * 4001, "string_too_long", "string"),
    ("prompt", "nul\0", "text_character", "string"),
    ("prompt", "bell\x07", "text_character", "string"),
    ("prompt", "escape \x1b[31m", "text_character", "string"),
    ("prompt", 5, "string_type", "integer"),
    ("prompt", None, "string_type", "null"),
    ("negative_prompt", "x" * 4001, "string_too_long", "string"),
    ("negative_prompt", "\x01", "text_character", "string"),
    ("type", "upscale", "literal_error", "string"),
    ("provider", "remote", "literal_error", "string"),
    ("model_id", "", "string_too_short", "string"),
    ("model_id", "a\0b", "text_character", "string"),
    ("model_id", 1, "string_type", "integer"),
    ("preset", 1, "string_type", "integer"),
    ("labels", [], "dict_type", "array"),
    ("labels", {str(n): "v" for n in range(17)}, "too_long", "object"),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value", "rule", "got"), BROKEN)
@pytest.mark.usefixtures("no_new_row")
def test_a_broken_rule_is_422_and_named(api: Api, field: str, value: Any, rule: str, got: str) -> None:
    answer = api.client.post("/v1/jobs", json={"prompt": "x", field: value}, headers={"Idempotency-Key": "never"})
    assert answer.status_code == 422, answer.text
    problem = answer.json()
    assert problem["code"] == "invalid_input"
    detail = problem["details"][0]
    assert (detail["pointer"], detail["field"], detail["got"]) == (f"/{field}", field, got)
    assert detail["rule"] == rule
    assert len(answer.content) < 2000, "the value is not repeated"


@pytest.mark.parametrize(
    ("labels", "pointer"),
    [
        ({"a": 1}, "/labels/a"),
        ({"a": "x" * 257}, "/labels/a"),
        ({"a": "\0"}, "/labels/a"),
        ({"": "v"}, "/labels/"),
        ({"a b": "v"}, "/labels/a b"),
        ({"x/" + "~": "v"}, "/labels/x~1~0"),
        ({"\ud800": "v"}, "/labels/"),
    ],
)
@pytest.mark.usefixtures("no_new_row")
def test_a_broken_label_is_422_with_its_pointer(api: Api, labels: dict[str, Any], pointer: str) -> None:
    answer = api.client.post("/v1/jobs", content=json.dumps({"prompt": "x", "labels": labels}), headers=JSON)
    assert answer.status_code == 422, answer.text
    assert answer.json()["details"][0]["pointer"].startswith(pointer)


@pytest.mark.parametrize("name", ["bogus", "Prompt", "id", "status", "", "a/b", "x" * 300])
@pytest.mark.parametrize("value", [None, 1])
@pytest.mark.usefixtures("no_new_row")
def test_an_unknown_field_is_422_also_beside_a_preset(api: Api, name: str, value: Any) -> None:
    for base in ({"prompt": "x"}, {"prompt": "x", "preset": "draft"}):
        answer = api.client.post("/v1/jobs", content=json.dumps({**base, name: value}), headers=JSON)
        assert answer.status_code == 422, answer.text
        assert [detail["rule"] for detail in answer.json()["details"]] == ["extra_forbidden"]


@pytest.mark.parametrize("body", ["null", "[]", '"x"', "1", "true", "[{}]"])
@pytest.mark.usefixtures("no_new_row")
def test_json_that_is_no_object_is_422(api: Api, body: str) -> None:
    answer = api.client.post("/v1/jobs", content=body, headers=JSON)
    assert (answer.status_code, answer.json()["details"][0]["pointer"]) == (422, "")


@pytest.mark.usefixtures("no_new_row")
def test_a_lone_surrogate_is_422_in_a_prompt_and_in_a_name(api: Api) -> None:
    answer = api.client.post("/v1/jobs", content=b'{"prompt": "\\ud800"}', headers=JSON)
    assert (answer.status_code, answer.json()["details"][0]["pointer"]) == (422, "/prompt")
    answer = api.client.post("/v1/jobs", content=b'{"prompt": "x", "\\ud800": 1}', headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")


@pytest.mark.usefixtures("no_new_row")
def test_a_missing_prompt_is_422(api: Api) -> None:
    detail = api.client.post("/v1/jobs", json={}).json()["details"][0]
    assert (detail["pointer"], detail["rule"], detail["got"]) == ("/prompt", "missing", "absent")


@pytest.mark.parametrize("given", ["text/plain", "application/jsonx", "application/x-www-form-urlencoded", "", None])
@pytest.mark.usefixtures("no_new_row")
def test_another_content_type_is_415(api: Api, given: str | None) -> None:
    headers = {} if given is None else {"content-type": given}
    answer = api.client.post("/v1/jobs", content=b'{"prompt": "x"}', headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("given", ["application/json; charset=utf-8", "Application/JSON", "application/json ;x=y"])
def test_json_with_parameters_is_taken(api: Api, given: str) -> None:
    answer = api.client.post("/v1/jobs", content=b'{"prompt": "x"}', headers={"content-type": given})
    assert answer.status_code == 202


def _sized(size: int) -> bytes:
    body = b'{"prompt": "x"}'
    return body + b" " * (size - len(body))


def test_exactly_64_kib_pass_and_one_byte_more_is_413(api: Api) -> None:
    assert api.client.post("/v1/jobs", content=_sized(65_536), headers=JSON).status_code == 202
    over = api.client.post("/v1/jobs", content=_sized(65_537), headers=JSON)
    assert (over.status_code, over.json()["code"]) == (413, "body_too_large")


def _chunks(size: int) -> Iterator[bytes]:
    body = _sized(size)
    for begin in range(0, size, 10_000):
        yield body[begin : begin + 10_000]


def test_the_limit_holds_for_chunked_bodies_too(api: Api) -> None:
    assert api.client.post("/v1/jobs", content=_chunks(65_536), headers=JSON).status_code == 202
    assert api.client.post("/v1/jobs", content=_chunks(65_537), headers=JSON).status_code == 413


def test_a_body_that_promises_too_much_is_refused_before_it_comes(api: Api) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=10)
    connection.putrequest("POST", "/v1/jobs")
    connection.putheader("content-type", "application/json")
    connection.putheader("content-length", str(10**9))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_null_on_an_optional_field_means_absent(api: Api) -> None:
    fields = (
        "negative_prompt",
        "width",
        "steps",
        "seed",
        "count",
        "format",
        "preset",
        "labels",
        "model_id",
        "provider",
    )
    answer = api.client.post("/v1/jobs", json={"prompt": "x"} | dict.fromkeys(fields))
    assert answer.status_code == 202, answer.text
    assert answer.json()["params"]["width"] == 1024


HOSTILE = [
    "a\n\ndata: {}\n\nevent: end\n", "\r\n\r\nid: 99\r\n", '{"seq": 1, "level": "info"}\n{"seq": 2}\n',
    "<script>alert(1)</script>", "'; DROP TABLE jobs; --", "{{7*7}} %s ${x} ${jndi:ldap://x}",
    "\u202eabc\u200b\u2028", "\U0001f3a8" * 4000, "x" * 4000, '"\\', "\x7f\x85\u009b31m", "tab\tand\nline\rends",
]  # fmt: skip


@pytest.mark.parametrize("prompt", HOSTILE)
def test_hostile_text_is_stored_as_it_is(api: Api, prompt: str) -> None:
    made = api.create(prompt=prompt, negative_prompt=prompt, labels={"a": prompt[:200]})
    assert made["params"]["prompt"] == prompt
    again = api.client.get(f"/v1/jobs/{made['id']}").json()
    assert again["params"]["negative_prompt"] == prompt
    assert again["labels"] == {"a": prompt[:200]}
    found = api.client.get("/v1/jobs", params={"label": f"a={prompt[:200]}", "limit": "1"})
    assert found.json()["items"][0]["id"] == made["id"]
    assert prompt[:20] not in api.client.get("/metrics").text
    assert prompt[:20] not in api.log.read_text()


@pytest.mark.parametrize(
    "query",
    [
        "tail=0", "tail=-1", "tail=10001", "tail=1000000000", "tail=x", "tail=", "tail=1.0", "since_ts=now",
        "since_ts=2026-01-01T00:00:00", "since_ts=1767225600", "since_ts=2026-01-01", "since_ts=",
        "since_ts=2026-13-01T00:00:00Z", "since_ts=2026-01-01T00:00:60Z", "since_ts=0001-01-01T00:00:00%2B23:00",
        "since_ts=2026-01-01T00:00:00+01:00",
    ],
)  # fmt: skip
def test_a_bad_log_parameter_is_400(api: Api, query: str) -> None:
    job = api.create()
    answer = api.client.get(f"/v1/jobs/{job['id']}/logs?{query}")
    assert answer.status_code == 400, answer.text
    assert answer.json()["details"][0]["field"] == query.partition("=")[0]
    assert answer.json()["job_id"] == job["id"]


def test_every_error_so_far_was_meant(api: Api) -> None:
    """Runs last: no request of this module was a defect."""
    assert "a request failed" not in api.log.read_text()
    assert 'status="500"' not in api.client.get("/metrics").text
