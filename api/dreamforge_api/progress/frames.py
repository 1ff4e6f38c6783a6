"""One event as bytes of an event stream, made once and shared by all readers.

JSON keeps a frame on one line, whatever the text in it: line ends, ``data:`` and control characters are escaped.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from dreamforge.events import EventType
from dreamforge.jobs import JobState
from dreamforge_api import one_line, times

RETRY = b"retry: 2000\n\n"
HEARTBEAT = b": still here\n\n"


class Frame(NamedTuple):
    """One event. ``item`` is set for progress only: a later frame of the same item makes this one superfluous."""

    seq: int
    data: bytes
    item: int | None = None
    terminal: bool = False


def encode(row: Mapping[Any, Any]) -> Frame:
    """The frame of a row of the events table."""
    kind = row["type"]
    seq = row["seq"]
    body = payload_of(row)
    data = b"id: %d\nevent: %s\ndata: %s\n\n" % (seq, kind.encode(), one_line.encode(body))
    if kind == EventType.PROGRESS:
        return Frame(seq, data, item=-1 if row["item_index"] is None else row["item_index"])
    return Frame(seq, data, terminal=kind == EventType.STATE and JobState(body["status"]).terminal)


def payload_of(row: Mapping[Any, Any]) -> dict[str, Any]:
    """What ``data:`` says: the fields of every event, then those of its type."""
    common = {
        "seq": row["seq"],
        "ts": times.text(row["ts"]),
        "job_id": str(row["job_id"]),
        "step": row["step"],
        "item_index": row["item_index"],
    }
    own: dict[str, Any] = row["payload"]
    if row["type"] == EventType.LOG:
        own = {"level": row["level"], "code": row["code"], "message": row["message"], **own}
    return common | own | common  # the event's own fields never replace those of every event


def end(last_seq: int) -> bytes:
    """The frame after the last one. It has no id, so a reader's ``Last-Event-ID`` stays that of the last event."""
    return b'event: end\ndata: {"last_seq": %d}\n\n' % last_seq


def without_superseded(frames: Iterable[Frame]) -> list[Frame]:
    """``frames`` without the progress that later progress of the same item makes superfluous."""
    kept: list[Frame] = []
    seen: set[int] = set()
    for frame in reversed(list(frames)):
        if frame.item is not None:
            if frame.item in seen:
                continue
            seen.add(frame.item)
        kept.append(frame)
    kept.reverse()
    return kept
