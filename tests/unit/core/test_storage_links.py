"""Links of the filesystem store: only what was signed opens, only while it lives."""

from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamforge.storage.filesystem import FilesystemStore
from dreamforge.storage.links import PATH, Forbidden, content_disposition, signed_path, verify

SECRET = b"a signing key of the tests"
NOW = 1_800_000_000.0
KEY = "dreamforge/default/jobs/a/1.png"


def params(**changes: str) -> dict[str, str]:
    url = signed_path(SECRET, KEY, expires=int(NOW) + 60, filename="1.png", content_type="image/png")
    return dict(parse_qsl(urlsplit(url).query)) | changes


def refused(key: str, query: dict[str, str], now: float = NOW) -> str:
    with pytest.raises(Forbidden) as caught:
        verify(SECRET, key, query, now=now)
    return str(caught.value)


def test_a_signed_link_opens_what_it_names() -> None:
    opened = verify(SECRET, KEY, params(), now=NOW)
    assert (opened.key, opened.filename, opened.content_type) == (KEY, "1.png", "image/png")
    assert opened.expires_at == datetime.fromtimestamp(NOW + 60, UTC)


@given(filename=st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=40))
def test_any_file_name_survives_the_way_through_the_url(filename: str) -> None:
    url = signed_path(SECRET, KEY, expires=int(NOW) + 60, filename=filename, content_type="image/png")
    parts = urlsplit(url)
    assert parts.path == PATH + KEY
    assert verify(SECRET, KEY, dict(parse_qsl(parts.query)), now=NOW).filename == filename


@given(
    field=st.sampled_from(["expires", "filename", "content_type", "signature"]),
    value=st.text(max_size=80),
)
def test_any_other_value_of_any_parameter_is_refused(field: str, value: str) -> None:
    if value != params()[field]:
        refused(KEY, params(**{field: value}))


@pytest.mark.parametrize(
    "signature",
    ["", "zz" * 32, "00" * 31, "00" * 33, "0" * 64, "é" * 64, "\ud800" * 64, " " + "0" * 63, "０" * 64],
)
def test_signatures_that_are_not_one(signature: str) -> None:
    refused(KEY, params(signature=signature))


def test_the_upper_case_form_of_a_signature_is_another_text() -> None:
    refused(KEY, params(signature=params()["signature"].upper()))


@pytest.mark.parametrize(
    "expires", ["", "-1", "0", "+5", "1e99", " 1", "1_000", "٣", "nan", "9" * 12, "9" * 400, "1800000060\n"]
)
def test_expiry_times_that_were_never_signed(expires: str) -> None:
    refused(KEY, params(expires=expires))


def test_a_link_ends_at_its_second() -> None:
    assert verify(SECRET, KEY, params(), now=NOW + 59.9).key == KEY
    assert refused(KEY, params(), now=NOW + 60) == "The link has expired"


def test_even_a_right_signature_does_not_open_for_years() -> None:
    url = signed_path(SECRET, KEY, expires=int(NOW) + 10**9, filename="1.png", content_type="image/png")
    refused(KEY, dict(parse_qsl(urlsplit(url).query)))


def test_a_tampered_link_does_not_tell_whether_it_expired() -> None:
    assert refused(KEY, params(expires="1700000000")) == refused(KEY, params(filename="x"))


@pytest.mark.parametrize("key", ["dreamforge/default/jobs/a/2.png", "", "../" + KEY, KEY + "/", KEY + "\n", "é"])
def test_a_link_opens_no_other_key(key: str) -> None:
    refused(key, params())


def test_parameters_are_those_signed_no_more_no_less() -> None:
    refused(KEY, params(more="1"))
    for name in params():
        refused(KEY, {field: value for field, value in params().items() if field != name})


def test_text_can_not_move_between_parameters() -> None:
    url = signed_path(SECRET, KEY, expires=int(NOW) + 60, filename='a", "b', content_type="c/d")
    query = dict(parse_qsl(urlsplit(url).query))
    refused(KEY, query | {"filename": "a", "content_type": 'b", "c/d'})


def test_another_signing_key_opens_nothing() -> None:
    with pytest.raises(Forbidden):
        verify(b"another signing key", KEY, params(), now=NOW)


def test_the_store_signs_relative_to_the_api_and_for_its_own_clock(tmp_path: Path) -> None:
    now = NOW
    store = FilesystemStore(tmp_path, SECRET.decode(), now=lambda: now)
    signed = store.sign_get(KEY, ttl_seconds=60, filename="1.png", content_type="image/png")
    assert signed.url == f"{PATH}{KEY}?" + signed.url.partition("?")[2]
    assert signed.expires_at == datetime.fromtimestamp(NOW + 60, UTC)
    query = dict(parse_qsl(urlsplit(signed.url).query))
    assert store.verify_get(KEY, query).key == KEY
    now = NOW + 61
    with pytest.raises(Forbidden, match="expired"):
        store.verify_get(KEY, query)


@pytest.mark.parametrize(
    ("filename", "header"),
    [
        ("image.png", "attachment; filename=\"image.png\"; filename*=UTF-8''image.png"),
        ('a"b;c.png', "attachment; filename=\"a_b_c.png\"; filename*=UTF-8''a%22b%3Bc.png"),
        ("größe.png", "attachment; filename=\"gr__e.png\"; filename*=UTF-8''gr%C3%B6%C3%9Fe.png"),
    ],
)
def test_content_disposition(filename: str, header: str) -> None:
    assert content_disposition(filename) == header
