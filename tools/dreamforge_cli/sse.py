"""Server-sent events: lines in, frames out. Follows the WHATWG rules a client needs; knows no network."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Frame:
    """One dispatched event. ``id`` is the last id seen on the stream so far, not only in this frame."""

    event: str
    data: str
    id: str | None


def frames(lines: Iterable[str], last_id: str | None = None) -> Iterator[Frame]:
    """Cut ``lines`` (without their ends) into frames; an unfinished frame at the end is dropped."""
    event, data = "", list[str]()
    for line in lines:
        if line == "":
            if data:
                yield Frame(event or "message", "\n".join(data), last_id)
            event, data = "", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name == "event":
            event = value
        elif name == "id" and "\0" not in value:
            last_id = value
