"""Strict JSON: one text has one meaning, or none."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from dreamforge.errors import ErrorCode
from dreamforge_api import body
from dreamforge_api.problem import Problem

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(_JSON)
def test_what_json_writes_is_read_back(value: Any) -> None:
    try:
        content = json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # a lone surrogate in a name
        return
    assert body.parse(content) == value


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_a_400(content: bytes) -> None:
    try:
        json.loads(content)
        valid = True
    except ValueError:
        valid = False
    try:
        body.parse(content)
        taken = True
    except Problem as problem:
        taken = False
        code = problem.code
    assert taken or code is ErrorCode.MALFORMED_BODY
    assert valid or not taken, "what is no JSON is never taken"


@pytest.mark.parametrize("declared", ["65537", "9" * 5000, "0" * 5000 + "65537"])
def test_a_length_that_is_too_large_is_refused_however_many_digits_it_has(declared: str) -> None:
    with pytest.raises(Problem) as refused:
        asyncio.run(body.read(_request(declared)))
    assert refused.value.code is ErrorCode.BODY_TOO_LARGE


@pytest.mark.parametrize("declared", ["2", "65536", "0" * 5000 + "2", "0", "many"])
def test_any_other_length_decides_nothing(declared: str) -> None:
    assert asyncio.run(body.read(_request(declared))) == b"{}"


def _request(declared: str) -> Request:
    async def receive() -> Message:
        return {"type": "http.request", "body": b"{}"}

    return Request({"type": "http", "headers": [(b"content-length", declared.encode())]}, receive)


def test_depth_is_counted_outside_of_strings_only() -> None:
    assert body.parse(json.dumps({"prompt": "[{" * 200}).encode()) == {"prompt": "[{" * 200}
    assert body.parse(b"[" * 64 + b"]" * 64)
    with pytest.raises(Problem, match="64 levels"):
        body.parse(b"[" * 65 + b"]" * 65)
    assert body.parse(b"[" + b"[]," * 500 + b"[]]") == [[]] * 501


def test_quotes_in_strings_do_not_hide_depth() -> None:
    tricky = b'{"a": "\\"[", "b": ' + b"[" * 64 + b"]" * 64 + b"}"
    with pytest.raises(Problem, match="levels"):
        body.parse(tricky)
