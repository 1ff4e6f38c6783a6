"""Whatever a child writes becomes one NDJSON object a line."""

import json
import resource

import pytest

from dreamforge_cli.up import logs
from dreamforge_cli.up.logs import Lines, LogFile, entry


def test_lines_are_put_together_from_pieces():
    lines = Lines()
    assert lines.feed(b"a\nb") == [b"a"]
    assert lines.feed(b"c\n\nd") == [b"bc", b""]
    assert lines.end() == [b"d"]
    assert lines.end() == []


def test_an_endless_line_is_cut(monkeypatch):
    monkeypatch.setattr(logs, "_LONGEST_LINE", 10)
    lines = Lines()
    assert lines.feed(b"x" * 11) == [b"x" * 11]
    assert lines.end() == []


def test_json_objects_stay_and_keep_their_own_process_name():
    assert entry("api", b'{"message": "hello", "level": "info"}') == {
        "process": "api",
        "message": "hello",
        "level": "info",
    }
    assert entry("api", b'{"process": "worker"}') == {"process": "worker"}


@pytest.mark.parametrize("line", [b"plain text", b"[1, 2]", b'"text"', b"12", b'{"half":', b"\xff\xfe"])
def test_anything_else_is_wrapped(line):
    made = entry("postgres", line)
    assert made
    assert made["message"] == line.decode(errors="replace")
    assert made["process"] == "postgres"
    assert made["level"] == "info"


@pytest.mark.parametrize(
    ("line", "level"),
    [
        (b"2026-01-01 UTC [1] FATAL:  could not", "error"),
        (b"x WARNING: y", "warning"),
        (b"Traceback (most recent call last):", "error"),
    ],
)
def test_the_level_of_a_plain_line_is_read_from_its_words(line, level):
    made = entry("postgres", line)
    assert made
    assert made["level"] == level


@pytest.mark.parametrize("line", [b"", b"   ", b"\r"])
def test_blank_lines_are_nothing(line):
    assert entry("api", line) is None


def test_a_large_file_moves_aside_and_no_line_is_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "_ROTATE_BYTES", 100)
    log = LogFile(tmp_path, "api")
    for number in range(10):
        log.write({"message": "x" * 30, "number": number})
    log.close()
    found = [
        json.loads(line)["number"]
        for name in ("api.1.ndjson", "api.ndjson")
        for line in (tmp_path / name).read_text().splitlines()
    ]
    assert found == list(range(10 - len(found), 10))
    assert len(found) >= 2
    assert (tmp_path / "api.1.ndjson").exists()


def test_what_the_disk_has_no_room_for_is_dropped_and_leaves_no_half_line(tmp_path):
    log = LogFile(tmp_path, "api")
    log.write({"number": 1})
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "api.ndjson").stat().st_size + 5, hard))
    try:
        log.write({"number": 2})
        log.write({"number": 3})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))
    log.write({"number": 4})
    log.close()
    assert [json.loads(line)["number"] for line in (tmp_path / "api.ndjson").read_text().splitlines()] == [1, 4]


def test_a_full_disk_is_no_error_when_the_file_is_closed_either(tmp_path):
    (tmp_path / "api.ndjson").symlink_to("/dev/full")
    log = LogFile(tmp_path, "api")
    log.write({"number": 1})
    log.close()
