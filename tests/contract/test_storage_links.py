"""What every store's links promise: one object, for reading, until they expire."""

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.contract.storage_kit import PNG, STORES, Kit, link, open_kit, put


@pytest.fixture(params=STORES)
def kit(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kit]:
    with open_kit(request, tmp_path) as kit:
        yield kit


def test_a_link_reads_the_object_as_an_attachment(kit: Kit) -> None:
    put(kit.store, "jobs/a/1.png")
    before = datetime.now(UTC)
    signed = kit.store.sign_get("jobs/a/1.png", ttl_seconds=60, filename="my image.png", content_type="image/png")
    status, headers, body = kit.follow(signed.url)
    assert (status, body) == (200, PNG)
    assert headers["Content-Type"] == "image/png"
    assert headers["Content-Disposition"].startswith('attachment; filename="my image.png"')
    assert timedelta(seconds=58) < signed.expires_at - before <= timedelta(seconds=61)  # whole seconds


def test_a_link_to_nothing_is_not_found(kit: Kit) -> None:
    put(kit.store, "jobs/a/1.png")
    assert kit.follow(link(kit.store, "jobs/a/2.png"))[0] == 404


def test_an_edited_link_is_refused(kit: Kit) -> None:
    put(kit.store, "jobs/a/1.png")
    put(kit.store, "jobs/a/2.png")
    url = link(kit.store, "jobs/a/1.png")
    assert kit.follow(url)[0] == 200
    edits = {
        "key": url.replace("a/1.png", "a/2.png"),
        "last digit": url[:-1] + ("0" if url[-1] != "0" else "1"),
        "file name": url.replace("image.png", "image.exe"),
        "type": url.replace("image%2Fpng", "text%2Fhtml"),
        "lifetime": re.sub(r"(X-Amz-Expires=|expires=)\d+", r"\g<1>90000000", url),
        "one more": f"{url}&more=1",
        "no signature": re.sub(r"&(X-Amz-S|s)ignature=[0-9a-f]+", "", url),
        "nothing": url.partition("?")[0],
    }
    for name, edited in edits.items():
        assert edited != url, name
        # S3 calls a request that it can't read malformed, before it looks at the signature.
        refusals = (400, 403) if name in ("lifetime", "no signature") else (403,)
        assert kit.follow(edited)[0] in refusals, name


def test_an_expired_link_is_refused(kit: Kit) -> None:
    put(kit.store, "jobs/a/1.png")
    url = link(kit.store, "jobs/a/1.png", ttl_seconds=1)
    deadline = time.monotonic() + 10
    while (status := kit.follow(url)[0]) == 200 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert status == 403


@pytest.mark.parametrize("ttl_seconds", [0, -1, 604_801])
def test_a_link_can_not_live_for_any_time(kit: Kit, ttl_seconds: int) -> None:
    with pytest.raises(ValueError):
        link(kit.store, "a/b.png", ttl_seconds)


@pytest.mark.parametrize("filename", ["", "a/b", "a\r\nX: y", "x" * 256])
def test_a_link_can_not_carry_a_hostile_file_name(kit: Kit, filename: str) -> None:
    with pytest.raises(ValueError):
        kit.store.sign_get("a/b.png", ttl_seconds=60, filename=filename, content_type="image/png")
