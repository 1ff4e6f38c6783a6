"""What the fetcher refuses: each wrong answer has its class and leaves nothing that could be taken for a model."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from dreamforge_cli.models.errors import (
    BadReference,
    DiskError,
    IntegrityError,
    ModelError,
    NetworkError,
    NotAllowed,
)
from dreamforge_cli.models.fetch.fetcher import fetch
from tests.integration.models.fetch_kit import FAST, KIB, TOKEN, Source, left_over, some_bytes, source
from tests.standins.faults import Fault, Place

SIZE = 1024 * KIB


@pytest.fixture(scope="module")
def data() -> bytes:
    return some_bytes(SIZE)


@pytest.fixture
def there(data: bytes) -> Iterator[Source]:
    with source(data) as made:
        yield made


@dataclass(frozen=True)
class Wrong:
    """A wrong answer, and what it is to be called."""

    name: str
    fault: Fault
    error: type[ModelError]
    says: str
    place: Place = Place.STORE
    #: Part and sidecar stay for the next try.
    goes_on: bool = False


FRONT = Place.FRONT
NEW_YEAR = "Fri, 01 Jan 2100 00:00:00 GMT"
WRONG = [
    Wrong("401", Fault(status=401), NotAllowed, "401", FRONT),
    Wrong("403", Fault(status=403, body=b'{"message": "Early access until May"}'), NotAllowed, "Early access", FRONT),
    Wrong("403 of a fresh signed URL", Fault(status=403), NotAllowed, "403"),
    Wrong("404", Fault(status=404), BadReference, "404", FRONT),
    Wrong("410 archived", Fault(status=410), BadReference, "410", FRONT),
    Wrong("451", Fault(status=451), NotAllowed, "451", FRONT),
    Wrong("416", Fault(status=416), NetworkError, "no such range"),
    Wrong("418", Fault(status=418), NetworkError, "418", FRONT),
    Wrong("204", Fault(status=204, body=b""), NetworkError, "204", FRONT),
    Wrong("304", Fault(status=304, body=b""), NetworkError, "304", FRONT),
    Wrong("429 for 31 years", Fault(status=429, headers={"Retry-After": "1000000000"}), NetworkError, "too long"),
    Wrong("429 until 2100", Fault(status=429, headers={"Retry-After": NEW_YEAR}), NetworkError, "too long"),
    Wrong("429 for ever", Fault(status=429, headers={"Retry-After": "0"}), NetworkError, "given up after 3"),
    Wrong("429 nonsense", Fault(status=429, headers={"Retry-After": "-5 parsecs"}), NetworkError, "given up after 3"),
    Wrong("500 for ever", Fault(status=500), NetworkError, "given up after 3", FRONT),
    Wrong("500 in the middle", Fault(status=500, after=2), NetworkError, "given up after 3", goes_on=True),
    Wrong("login page", Fault(login_page=True), NotAllowed, "web page"),
    Wrong("login page at the front", Fault(login_page=True), NotAllowed, "web page", FRONT),
    Wrong("page as bytes", Fault(replaced_by=b"<!DOCTYPE html>" + bytes(SIZE - 15)), NotAllowed, "web page"),
    Wrong("gzip", Fault(gzip_zeros=SIZE), IntegrityError, "compressed"),
    Wrong("gzip bomb", Fault(gzip_zeros=10**10), IntegrityError, "compressed"),
    Wrong("encoding br", Fault(extra={"Content-Encoding": "br"}), IntegrityError, "compressed"),
    Wrong("longer than announced", Fault(replaced_by=bytes(SIZE + 1)), IntegrityError, "were announced"),
    Wrong("shorter than announced", Fault(replaced_by=bytes(SIZE - 1)), IntegrityError, "were announced"),
    Wrong("length too long", Fault(length_off_by=9, ignores_range=True), IntegrityError, "were announced"),
    Wrong("length too short", Fault(length_off_by=-9, ignores_range=True), IntegrityError, "were announced"),
    Wrong("range's length too long", Fault(length_off_by=9), IntegrityError, "for a range of"),
    Wrong("other range", Fault(range_off_by=1), IntegrityError, "were asked for"),
    Wrong("range before the start", Fault(range_off_by=-1), IntegrityError, "without saying"),
    Wrong("no range told", Fault(status=206, body=bytes(256 * KIB)), IntegrityError, "without saying"),
    Wrong("endless stream", Fault(ignores_range=True, no_length=True), IntegrityError, "more bytes"),
    Wrong("one bit", Fault(flipped_at=SIZE - 1), IntegrityError, "vouches"),
    Wrong("stall at 99 %", Fault(stall_at=0.99), NetworkError, "no byte came for too long", goes_on=True),
    Wrong("drip", Fault(speed=100), NetworkError, "bytes a second", goes_on=True),
    Wrong("cut for ever", Fault(cut_at=0.0001), NetworkError, "given up after 3", goes_on=True),
    Wrong("redirect loop", Fault(location="{self}"), NetworkError, "redirects once more", FRONT),
    Wrong("redirect nowhere", Fault(location=""), NetworkError, "nowhere", FRONT),
    Wrong("redirect to http", Fault(location="http://models.example/x"), NotAllowed, "https only", FRONT),
    Wrong("redirect to a file", Fault(location="file:///etc/passwd"), NotAllowed, "refused", FRONT),
    Wrong("redirect to ftp", Fault(location="ftp://models.example/x"), NotAllowed, "refused", FRONT),
    Wrong("redirect with a user", Fault(location="https://me:pass@models.example/"), NotAllowed, "refused", FRONT),
    Wrong("redirect to this machine", Fault(location="https://127.0.0.1/x"), NotAllowed, "no public", FRONT),
    Wrong("redirect to metadata", Fault(location="https://169.254.169.254/latest"), NotAllowed, "no public", FRONT),
    Wrong("redirect to no port", Fault(location="https://8.8.8.8:99999/x"), NotAllowed, "no port", FRONT),
    Wrong("redirect to garbage", Fault(location="https://[::1/"), NetworkError, "no URL", FRONT),
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.name)
def test_a_wrong_answer_has_its_class_and_leaves_nothing(there: Source, tmp_path: Path, wrong: Wrong):
    there.fault(replace(wrong.fault), wrong.place)
    file = there.file()
    if wrong.name == "endless stream":
        file = there.file(size_bytes=SIZE // 2)
    silent = wrong.fault.stall_at is not None or wrong.fault.speed is not None
    limits = replace(FAST, stall_seconds=0.4) if silent else FAST
    with there.client() as client, pytest.raises(wrong.error, match=wrong.says) as caught:
        fetch(file, tmp_path / "x", client, limits)
    assert type(caught.value) is wrong.error
    assert str(caught.value).startswith("model.safetensors: ")
    assert TOKEN not in str(caught.value)
    assert left_over(tmp_path) == (["x.part", "x.part.json"] if wrong.goes_on else [])


@pytest.mark.parametrize(
    "name", ["../../evil", "/etc/cron.d/evil", "a\x00b", "x" * 300, "CON", "..\\evil", "%2e%2e%2fevil", "~/.ssh/id"]
)
def test_a_name_that_a_server_suggests_is_never_used(there: Source, tmp_path: Path, name: str):
    suggested = name.replace("\x00", "\\0")
    there.fault(Fault(extra={"Content-Disposition": f'attachment; filename="{suggested}"'}))
    with there.client() as client:
        fetch(there.file(), tmp_path / "in/x", client, FAST)
    assert left_over(tmp_path) == ["in/x"]


def test_a_stranger_s_words_are_cut_and_made_harmless(there: Source, tmp_path: Path):
    words = f"\x1b[31mNo\r\n{TOKEN}\u202e\x07 " + "x" * 3000
    there.fault(Fault(status=403, body=json.dumps({"error": words}).encode()), Place.FRONT)
    with there.client() as client, pytest.raises(NotAllowed) as caught:
        fetch(there.file(), tmp_path / "x", client, FAST)
    text = str(caught.value)
    assert "No [token]" in text
    assert text.isprintable()
    assert TOKEN not in text
    assert len(text) < 600


@pytest.mark.parametrize("size_known", [True, False])
def test_a_file_may_be_so_large_and_no_larger(there: Source, tmp_path: Path, size_known: bool):
    file = there.file() if size_known else there.file(size_bytes=None)
    with there.client() as client:
        with pytest.raises(NotAllowed, match="more than the"):
            fetch(file, tmp_path / "x", client, replace(FAST, file_bytes=SIZE - 1))
        there.fault(Fault(ignores_range=True, no_length=True))
        with pytest.raises((NotAllowed, IntegrityError), match="more"):
            fetch(file, tmp_path / "x", client, replace(FAST, file_bytes=SIZE - 1))
    assert left_over(tmp_path) == []


def test_a_download_may_take_so_long_and_no_longer(there: Source, tmp_path: Path):
    there.fault(Fault(speed=200 * KIB))
    with there.client() as client, pytest.raises(NetworkError, match="not done within"):
        fetch(there.file(), tmp_path / "x", client, replace(FAST, seconds=0.3))


def test_a_full_disk_is_seen_before_the_first_byte(there: Source, tmp_path: Path):
    with there.client() as client, pytest.raises(DiskError, match="GiB free"):
        fetch(there.file(), tmp_path / "x", client, replace(FAST, spare_bytes=2**60))
    assert there.sent <= 256 * KIB
    assert left_over(tmp_path) == []


_FILLS_THE_DISK = """
import sys
from pathlib import Path
from dreamforge_cli.models.errors import DiskError
from tests.integration.models.fetch_kit import FAST, some_bytes, source, left_over
from dreamforge_cli.models.fetch.fetcher import fetch
from dreamforge_cli.models.fetch.part import Part
Part.make_sure_of_space = lambda *_: None  # Another program takes the space after we looked.
disk = Path(sys.argv[1])
with source(some_bytes(4 * 2**20)) as there, there.client() as client:
    try:
        fetch(there.file(), disk / "x", client, FAST)
    except DiskError as error:
        print(error, left_over(disk))
"""


def test_a_disk_that_fills_on_the_way_is_a_disk_error(tmp_path: Path):
    mounted = ["unshare", "-rm", "sh", "-c", f'mount -t tmpfs -o size=2m none {tmp_path} && exec "$@"', "sh"]
    if not shutil.which("unshare") or subprocess.run([*mounted, "true"], capture_output=True).returncode:
        pytest.skip("no small disk: this user may not mount one")
    command = [*mounted, sys.executable, "-c", _FILLS_THE_DISK, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "No space left on device" in done.stdout, done.stderr
    assert "x.part" in done.stdout


def test_two_downloads_do_not_write_one_file(there: Source, tmp_path: Path):
    there.fault(Fault(speed=100 * KIB))
    first: list[Any] = []
    with there.client() as client:
        thread = threading.Thread(target=lambda: first.append(fetch(there.file(), tmp_path / "x", client, FAST)))
        thread.start()
        while not (tmp_path / "x.part").exists():
            thread.join(0.01)
        with pytest.raises(DiskError, match="another download"):
            fetch(there.file(), tmp_path / "x", client, FAST)
        there.faults.clear()
        thread.join(60)
    assert first[0].size_bytes == SIZE
    assert left_over(tmp_path) == ["x"]
