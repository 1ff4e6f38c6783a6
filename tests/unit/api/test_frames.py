"""An event on the wire is one frame and one line, whatever its text."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamforge_api import one_line
from dreamforge_api.progress import frames

JOB = UUID("01a1fd5c-9981-7483-9833-4709df31d11f")


def row(**changes: Any) -> dict[str, Any]:
    return {
        "seq": 3, "ts": datetime(2026, 1, 2, 3, 4, 5, 678_900, tzinfo=UTC), "job_id": JOB, "type": "log",
        "step": "generate", "item_index": None, "level": "info", "code": "note", "message": "hello", "payload": {},
    } | changes  # fmt: skip


def test_a_log_frame_word_by_word() -> None:
    assert frames.encode(row()).data == (
        b"id: 3\nevent: log\n"
        b'data: {"seq":3,"ts":"2026-01-02T03:04:05.678Z","job_id":"01a1fd5c-9981-7483-9833-4709df31d11f",'
        b'"step":"generate","item_index":null,"level":"info","code":"note","message":"hello"}\n\n'
    )


def test_a_payload_can_not_replace_what_every_event_has() -> None:
    shown = frames.payload_of(row(type="progress", payload={"seq": 99, "job_id": "x", "progress": 0.5}))
    assert (shown["seq"], shown["job_id"], shown["progress"]) == (3, str(JOB), 0.5)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_no_text_breaks_out_of_its_line(text: str) -> None:
    data = frames.encode(row(message=text, payload={"more": text})).data.decode()
    assert len(data.splitlines()) == 4, "id, event, data, blank"
    assert json.loads(data.splitlines()[2].removeprefix("data: "))["message"] == text


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"]))
    )
)
def test_json_on_one_line_is_the_same_json(value: dict[str, str]) -> None:
    encoded = one_line.encode(value)
    assert json.loads(encoded) == value
    assert len(encoded.decode().splitlines()) == 1


@pytest.mark.parametrize(
    ("status", "terminal"),
    [("running", False), ("queued", False), ("succeeded", True), ("failed", True), ("canceled", True)],
)
def test_terminal_states_end_the_stream(status: str, terminal: bool) -> None:
    made = frames.encode(row(type="state", payload={"status": status}))
    assert (made.terminal, made.item) == (terminal, None)


def test_only_progress_can_be_superseded() -> None:
    assert frames.encode(row(type="progress", item_index=4)).item == 4
    assert frames.encode(row(type="progress")).item is not None
    assert all(frames.encode(row(type=kind, item_index=4)).item is None for kind in ("log", "artifact", "error"))


def test_the_end_has_no_id() -> None:
    assert frames.end(12) == b'event: end\ndata: {"last_seq": 12}\n\n'
