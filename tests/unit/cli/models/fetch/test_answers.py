"""What an answer means: a table of headers."""

from datetime import UTC, datetime

import pytest

from dreamforge_cli.models.errors import BadReference, IntegrityError, NetworkError, NotAllowed
from dreamforge_cli.models.fetch import answers
from dreamforge_cli.models.fetch.answers import Body, Changed, Expired, Known, TryAgain, judge, refusal

E1, E2 = '"one"', '"two"'


def test_a_range_as_asked():
    headers = {"content-range": "bytes 10-19/100", "content-length": "10", "etag": E1}
    assert judge(206, headers, (10, 20), Known(100, E1)) == Body(10, 20, 100, E1, whole=False)
    assert judge(206, {"content-range": "bytes 90-99/100"}, (90, 120), Known()) == Body(
        90, 100, 100, None, whole=False
    )
    assert judge(206, {"content-range": "bytes 10-19/*"}, (10, 20), Known(100)).total is None


def test_everything_instead_of_a_range():
    assert judge(200, {"content-length": "100"}, (0, 20), Known()) == Body(0, 100, 100, None, whole=True)
    assert judge(200, {}, (0, 20), Known(100)) == Body(0, None, None, None, whole=True)
    with pytest.raises(Changed):
        judge(200, {"content-length": "100"}, (10, 20), Known(100))


@pytest.mark.parametrize(
    "content_range",
    [
        None, "", "bytes", "bytes */100", "bytes 10-19", "bytes 11-19/100", "bytes 9-19/100", "bytes 10-18/100",
        "bytes 10-20/100", "bytes 19-10/100", "items 10-19/100", "bytes 10-19/15", "bytes 1e1-19/100",
        "bytes -10-19/100", "bytes 10-19/100, 30-39/100", "bytes \u0661\u0660-19/100", "bytes 10-19/" + "9" * 30,
    ],
)  # fmt: skip
def test_another_range_is_refused(content_range: str | None):
    headers = {} if content_range is None else {"content-range": content_range}
    with pytest.raises(IntegrityError):
        judge(206, headers, (10, 20), Known(100))


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ({"content-length": "11"}, IntegrityError),
        ({"content-encoding": "gzip"}, IntegrityError),
        ({"content-encoding": "GZIP, identity"}, IntegrityError),
        ({"content-encoding": "identity"}, None),
        ({"content-type": "Text/HTML; charset=utf-8"}, NotAllowed),
        ({"content-type": "application/json"}, None),
        ({"etag": E2}, Changed),
        ({"etag": 'W/"one"'}, None),
    ],
)
def test_what_else_the_headers_say(headers: dict[str, str], error: type[Exception] | None):
    given = {"content-range": "bytes 10-19/100", **headers}
    if error is None:
        assert judge(206, given, (10, 20), Known(100, E1)).end == 20
    else:
        with pytest.raises(error):
            judge(206, given, (10, 20), Known(100, E1))


def test_another_size_than_announced_is_refused():
    with pytest.raises(IntegrityError, match="how long"):
        judge(206, {"content-range": "bytes 10-19/*"}, (10, 20), Known())
    with pytest.raises(IntegrityError, match="announced"):
        judge(206, {"content-range": "bytes 10-19/101"}, (10, 20), Known(100))


@pytest.mark.parametrize("etag", ['W/"weak"', "bare", '"a"b"', '"\x00"', '"' + "x" * 300 + '"', '"é"', ""])
def test_only_a_strong_etag_is_one(etag: str):
    assert judge(200, {"etag": etag}, (0, 20), Known()).etag is None


@pytest.mark.parametrize(
    ("status", "signed", "kind"),
    [
        (401, False, NotAllowed), (403, False, NotAllowed), (451, True, NotAllowed), (404, False, BadReference),
        (410, False, BadReference), (400, False, NetworkError), (418, True, NetworkError), (416, True, Changed),
        (429, True, TryAgain), (500, False, TryAgain), (403, True, Expired), (400, True, Expired),
    ],
)  # fmt: skip
def test_refusals_have_a_class(status: int, signed: bool, kind: type[Exception]):
    assert type(refusal(status, {}, "", "https://host/x", signed=signed)) is kind


NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None), ("0", 0), ("17", 17), ("1000000000", 1e9), ("9" * 400, 999_999_999_999), ("1.5", None),
        ("soon", None), ("", None), ("\u0661", None), ("Thu, 01 Jan 2026 00:01:00 GMT", 60),
        ("Wed, 31 Dec 2025 00:00:00 GMT", 0), ("Thu, 99 Jan 2026 00:01:00 GMT", None),
    ],
)  # fmt: skip
def test_retry_after(text: str | None, seconds: float | None):
    assert answers.retry_after(text, NOW) == seconds


def test_a_stranger_s_words():
    assert answers.plain("a\x1b[31m\r\n b\u202e  secret-token", frozenset({"secret-token"})) == "a [31m b [token]"
    assert len(answers.plain("x" * 1000, frozenset())) == 200


@pytest.mark.parametrize("start", [b"<!DOCTYPE html>", b"\n  <HTML lang=en>", b"<!doctype HTML><p>"])
def test_pages_are_known_by_their_start(start: bytes):
    assert answers.looks_like_a_page(start)
    assert not answers.looks_like_a_page(b"\x40\x00\x00" + start)
