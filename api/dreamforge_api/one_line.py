"""JSON that is one line for every reader, also for those that split at more than line feeds.

JSON itself escapes control characters only. Python's ``str.splitlines`` and other line readers also break at NEL and
at the two Unicode separators, which would let a text in a prompt or a log start a line of its own.
"""

from typing import Any

from pydantic_core import to_json

_BREAKS = (("\x85".encode(), b"\\u0085"), ("\u2028".encode(), b"\\u2028"), ("\u2029".encode(), b"\\u2029"))


def encode(value: Any) -> bytes:
    """``value`` as JSON without any character that someone takes for the end of a line."""
    data = to_json(value)
    for raw, escaped in _BREAKS:
        if raw in data:
            data = data.replace(raw, escaped)
    return data
