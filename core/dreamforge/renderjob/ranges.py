"""Sets of item indexes as short text, the way ``batch/v1`` writes completed indexes: ``0-3,5``."""

import re
from collections.abc import Iterable

#: Item indexes have at most two digits (a batch holds at most 100 items), so no text can ask for much memory.
PATTERN = r"^([0-9]{1,2}(-[0-9]{1,2})?(,[0-9]{1,2}(-[0-9]{1,2})?)*)?$"
MAX_LENGTH = 512


def format_ranges(indexes: Iterable[int]) -> str:
    """``{0, 1, 2, 5}`` as ``0-2,5``; the empty set as the empty text."""
    runs: list[list[int]] = []
    for index in sorted(set(indexes)):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def parse_ranges(text: str) -> frozenset[int]:
    """The reverse of :func:`format_ranges`. Raises ``ValueError`` for a text of another form."""
    if not re.fullmatch(PATTERN, text):
        raise ValueError(f"not a list of index ranges such as 0-3,5: {text[:80]!r}")
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)
