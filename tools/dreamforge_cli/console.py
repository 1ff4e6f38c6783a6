"""What the commands print: results on stdout, progress and remarks on stderr, foreign text made harmless."""

import json
import re
import sys
from typing import Any

from rich.console import Console

results = Console(soft_wrap=True, highlight=False, markup=False)
remarks = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def harmless(text: object) -> str:
    """Text of others on one line: no control character, so no forged line and no terminal escape."""
    return _CONTROLS.sub("\ufffd", " ".join(str(text).split("\n")))


def as_json(value: Any) -> None:
    """One JSON document on stdout, as programs want it."""
    json.dump(value, sys.stdout, ensure_ascii=False, indent=2)
    sys.stdout.write("\n")


def as_json_line(value: Any) -> None:
    """One line of NDJSON on stdout, at once."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def table(columns: list[str], rows: list[list[object]]) -> None:
    """Rows for people; values are never cut, whatever the terminal's width, so that ids can be copied."""
    cells = [columns, *([harmless("" if cell is None else cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(columns))]
    for number, row in enumerate(cells):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        results.print(line, style=None if number else "bold")


def facts(pairs: list[tuple[str, object]]) -> None:
    """Name and value, one pair a line; empty ones left out."""
    longest = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        if value not in (None, "", [], {}):
            results.print(f"{name:<{longest}}  {harmless(value)}")
